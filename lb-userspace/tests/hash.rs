//! `xdirector hash` as a program, against a server on loopback.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Command, Output},
    sync::{Arc, mpsc},
    thread,
};

use rcgen::{CertificateParams, CertifiedKey, DnType, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivatePkcs8KeyDer};

const HELLO: &str = "5d41402abc4b2a76b9719d911017c592";

/// A server of `hello` at every path, 404 at `/404`, over TLS with a certificate; each head that it reads arrives at the receiver.
fn server(tls: Option<&CertifiedKey<KeyPair>>) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = mpsc::channel();
    let config = tls.map(config);
    // Ends with the process.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, sender) = (stream.unwrap(), sender.clone());
            match &config {
                None => serve(stream, &sender),
                Some(config) => {
                    let connection = ServerConnection::new(Arc::clone(config)).unwrap();
                    serve(StreamOwned::new(connection, stream), &sender);
                }
            }
        }
    });
    (address, receiver)
}

/// Not much, since a client that does not trust the server leaves in between.
fn serve(stream: impl Read + Write, heads: &mpsc::Sender<String>) {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if !matches!(stream.read_line(&mut head), Ok(1..)) {
            return;
        }
    }
    let code = if head.starts_with("GET /404 ") { 404 } else { 200 };
    let answer = format!("HTTP/1.1 {code} X\r\nContent-Length: 5\r\n\r\nhello");
    let _ = stream.get_mut().write_all(answer.as_bytes());
    let _ = stream.get_mut().flush();
    let _ = heads.send(head);
}

fn config(identity: &CertifiedKey<KeyPair>) -> Arc<ServerConfig> {
    let key = PrivatePkcs8KeyDer::from(identity.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let certificates = vec![identity.cert.der().clone()];
    Arc::new(config.with_no_client_auth().with_single_cert(certificates, key.into()).unwrap())
}

/// A certificate that signs itself, and its key.
fn identity(name: &str) -> CertifiedKey<KeyPair> {
    let signing_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    // Two issuers of one name would be one issuer with a wrong signature.
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedKey { cert: params.self_signed(&signing_key).unwrap(), signing_key }
}

fn hash(roots: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xdirector"))
        .arg("hash")
        .args(args)
        .env_remove("SSL_CERT_DIR")
        .env("SSL_CERT_FILE", roots)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn plain() {
    let (address, heads) = server(None);
    let url = format!("http://{address}/a?b");
    let done = hash(Path::new("/dev/null"), &[&url]);
    assert_eq!((text(&done.stdout), text(&done.stderr)), (format!("MD5SUM = {HELLO}\n"), String::new()));
    assert!(done.status.success());
    let head = heads.recv().unwrap();
    assert!(head.starts_with(&format!("GET /a?b HTTP/1.1\r\nhost: {address}\r\n")), "{head}");

    let connect = address.to_string();
    let args = ["http://www.example/404", "--connect", &connect, "--header", "X-A: b", "--toml", "--verbose"];
    let done = hash(Path::new("/dev/null"), &args);
    assert_eq!(text(&done.stdout), format!("md5 = \"{HELLO}\"\n"));
    let shown = text(&done.stderr);
    for line in [
        &format!("# GET /404 from {address}, host www.example\n"),
        "# HTTP 404\n",
        "# content-length: 5\n",
        "xdirector: note: the answer is HTTP 404; a check takes 200-299 unless",
    ] {
        assert!(shown.contains(line), "no {line:?} in {shown}");
    }
    let head = heads.recv().unwrap();
    assert!(head.contains("host: www.example\r\n") && head.contains("x-a: b\r\n"), "{head}");
}

#[test]
fn failures() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let done = hash(Path::new("/dev/null"), &[&format!("http://{address}/")]);
    assert_eq!(done.status.code(), Some(1));
    assert_eq!(text(&done.stdout), "");
    assert_eq!(text(&done.stderr), format!("xdirector: {address}: connection refused\n"));
    assert_eq!(hash(Path::new("/dev/null"), &["nowhere"]).status.code(), Some(2));
}

#[test]
fn tls_with_the_systems_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let (web, other) = (identity("127.0.0.1"), identity("other.example"));
    fs::write(folder.path().join("web.crt"), web.cert.pem()).unwrap();
    fs::write(folder.path().join("other.crt"), other.cert.pem()).unwrap();
    fs::write(folder.path().join("text"), "no certificate").unwrap();
    let (address, _heads) = server(Some(&web));
    let url = format!("https://{address}/");
    for (roots, verify, error) in [
        ("other.crt", false, None),
        ("web.crt", true, None),
        ("other.crt", true, Some("certificate of an unknown issuer")),
        ("text", true, Some("this machine has no certificates to verify others with")),
        ("missing.crt", true, Some("this machine has no certificates to verify others with: ")),
    ] {
        let args: &[&str] = if verify { &[&url, "--verify"] } else { &[&url] };
        let done = hash(&folder.path().join(roots), args);
        match error {
            None => assert_eq!(text(&done.stdout), format!("MD5SUM = {HELLO}\n"), "{roots}: {done:?}"),
            Some(error) => {
                assert_eq!(done.status.code(), Some(1), "{roots}");
                let shown = text(&done.stderr);
                assert!(shown.starts_with(&format!("xdirector: {address}: {error}")), "{roots}: {shown}");
            }
        }
    }
}
