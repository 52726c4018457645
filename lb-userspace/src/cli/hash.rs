//! `xdirector hash URL`: what an `http` check expects, as keepalived's `genhash` tells it.

use std::{
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, anyhow, bail, ensure};
use clap::Args;
use hyper::Uri;

use super::closed_is_done;
use crate::{
    config::check::{HttpRequest, Tls},
    health::probe::{
        Way,
        http::{Client, Head, TlsClients, digest, hex, host},
    },
};

/// How long one address may take for everything.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Arguments of `xdirector hash`.
#[derive(Debug, Args)]
pub struct HashArgs {
    /// The page: http or https, a name or an address, as http://192.0.2.10:8080/health
    #[arg(value_name = "URL", value_parser = page)]
    pub page: Page,
    /// Ask for this host; the check needs the same `host` [default: the URL's]
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// Server name of the TLS handshake [default: the URL's host if that is a name]
    #[arg(long, value_name = "NAME")]
    pub sni: Option<String>,
    /// Refuse a server without a valid certificate
    #[arg(long)]
    pub verify: bool,
    /// Take any certificate, as a check does unless told otherwise (the default)
    #[arg(long, conflicts_with = "verify")]
    pub insecure: bool,
    /// Send this header too; may be repeated
    #[arg(long = "header", value_name = "'NAME: VALUE'", value_parser = header)]
    pub headers: Vec<(String, String)>,
    /// Connect to this address instead of the URL's, as a check of a real server does
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = connect)]
    pub connect: Option<(IpAddr, Option<u16>)>,
    /// Print the line for the configuration file: md5 = "..."
    #[arg(long)]
    pub toml: bool,
    /// Show on standard error what was asked and the header of the answer
    #[arg(long)]
    pub verbose: bool,
}

/// A URL in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    is_tls: bool,
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
    /// As the URL says it: host, and port if there is one.
    authority: String,
    /// Path and query.
    path: String,
}

/// Requests the page exactly as a check does and prints the MD5 of its body.
///
/// # Errors
/// When the page cannot be had, or standard output cannot be written.
pub fn run(args: &HashArgs) -> anyhow::Result<()> {
    ensure!(
        args.page.is_tls || !(args.verify || args.insecure || args.sni.is_some()),
        "--sni, --verify and --insecure are for https"
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (head, body) = runtime.block_on(fetch(args))?;
    if !(200..=299).contains(&head.status) {
        eprintln!(
            "xdirector: note: the answer is HTTP {}; a check takes 200-299 unless its `status` says otherwise",
            head.status
        );
    }
    let md5 = hex(&digest(&body));
    let line = if args.toml { format!("md5 = \"{md5}\"") } else { format!("MD5SUM = {md5}") };
    Ok(closed_is_done(writeln!(io::stdout(), "{line}"))?)
}

/// Tries the addresses of the server, one after the other, until one answers.
async fn fetch(args: &HashArgs) -> anyhow::Result<(Head, Vec<u8>)> {
    let tls = args.page.is_tls.then(|| Tls { sni: args.sni(), verify: args.verify });
    // Who does not verify has no use for the system's certificates.
    let clients = if args.verify { TlsClients::new() } else { TlsClients::with_roots(Vec::new()) };
    let request = args.request();
    let mut why = anyhow!("{} has no address", args.page.host);
    for connect in args.addresses().await? {
        let way = Way { connect, bind: None, fwmark: 0, through: None };
        let mut client = Client::new(&way, tls.as_ref(), &clients);
        if args.verbose {
            explain(&request, tls.as_ref(), connect);
        }
        let exchange = async {
            let head = client.send(&request, true).await?;
            if args.verbose {
                show(&head);
            }
            Ok::<_, String>((head, client.body().await?))
        };
        match tokio::time::timeout(TIMEOUT, exchange).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => why = anyhow!("{connect}: {error}"),
            Err(_) => why = anyhow!("{connect}: no answer within {} s", TIMEOUT.as_secs()),
        }
    }
    Err(why)
}

impl HashArgs {
    fn request(&self) -> HttpRequest {
        HttpRequest {
            path: self.page.path.clone(),
            method: "GET".into(),
            host: self.host.clone().or_else(|| self.page.is_named().then(|| self.page.authority.clone())),
            headers: self.headers.clone(),
            status: vec![200..=299],
            md5: None,
            regex: None,
        }
    }

    /// A handshake names no addresses (RFC 6066 section 3).
    fn sni(&self) -> Option<String> {
        self.sni.clone().or_else(|| self.page.is_named().then(|| self.page.host.clone()))
    }

    async fn addresses(&self) -> anyhow::Result<Vec<SocketAddr>> {
        if let Some((address, port)) = self.connect {
            return Ok(vec![SocketAddr::new(address, port.unwrap_or(self.page.port))]);
        }
        let found = tokio::net::lookup_host((self.page.host.as_str(), self.page.port))
            .await
            .with_context(|| format!("cannot look up {}", self.page.host))?;
        Ok(found.collect())
    }
}

impl Page {
    /// Whether the host is a name and no address.
    fn is_named(&self) -> bool {
        self.host.parse::<IpAddr>().is_err()
    }
}

fn explain(request: &HttpRequest, tls: Option<&Tls>, connect: SocketAddr) {
    let host = request.host.clone().unwrap_or_else(|| host(connect, tls.is_some()));
    eprintln!("# {} {} from {connect}, host {host}", request.method, request.path);
    if let Some(tls) = tls {
        let name =
            tls.sni.as_ref().map_or_else(|| "without server name".into(), |sni| format!("server name {sni}"));
        eprintln!("# TLS {name}, certificate {}", if tls.verify { "verified" } else { "not verified" });
    }
}

/// The answer's header as far as a terminal can be trusted with it.
fn show(head: &Head) {
    eprintln!("# HTTP {}", head.status);
    for (name, value) in &head.fields {
        eprintln!("# {name}: {}", value.as_bytes().escape_ascii());
    }
}

fn page(text: &str) -> anyhow::Result<Page> {
    let wrong = || anyhow!("not a URL as http://192.0.2.10/ or https://www.example.com/health");
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let is_tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        Some(other) => bail!("{other} is neither http nor https"),
        None => return Err(wrong()),
    };
    let authority = uri.authority().ok_or_else(wrong)?;
    if authority.as_str().contains('@') {
        bail!("a check sends no user name; give it as --header 'Authorization: ...'");
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    // `Uri` reads a port that is no number as none.
    let rest = &authority.as_str()[authority.host().len()..];
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => {
            if is_tls {
                443
            } else {
                80
            }
        }
        Some(port) => {
            port.parse().ok().filter(|port| *port != 0).ok_or_else(|| anyhow!("no port: {port}"))?
        }
        None => return Err(wrong()),
    };
    if host.is_empty() {
        return Err(wrong());
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let path = if path.starts_with('/') { path.into() } else { format!("/{path}") };
    Ok(Page { is_tls, host: host.into(), port, authority: authority.as_str().into(), path })
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().into(), value.trim().into())),
        _ => Err("a header is 'Name: value'".into()),
    }
}

fn connect(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse() {
        return Ok((address, None));
    }
    let found: SocketAddr = text
        .parse()
        .map_err(|_| "an address as 192.0.2.10, 192.0.2.10:8080 or [2001:db8::10]:8080".to_owned())?;
    Ok((found.ip(), Some(found.port())))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parse(args: &[&str]) -> Result<HashArgs, clap::Error> {
        match Cli::try_parse_from(["xdirector", "hash"].iter().chain(args))?.command {
            Command::Hash(args) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn pages() {
        for (url, is_tls, host, port, authority, path) in [
            ("http://192.0.2.1", false, "192.0.2.1", 80, "192.0.2.1", "/"),
            ("https://www.example/a?b=c", true, "www.example", 443, "www.example", "/a?b=c"),
            ("http://www.example:8080?q", false, "www.example", 8080, "www.example:8080", "/?q"),
            ("HTTPS://[2001:db8::1]:8443/", true, "2001:db8::1", 8443, "[2001:db8::1]:8443", "/"),
            ("http://[::1]/x#part", false, "::1", 80, "[::1]", "/x"),
        ] {
            let (host, authority, path) = (host.into(), authority.into(), path.into());
            assert_eq!(page(url).unwrap(), Page { is_tls, host, port, authority, path }, "{url}");
        }
        for wrong in [
            "",
            "/",
            "www.example",
            "www.example/a",
            "ftp://a/",
            "http://",
            "http://a:b@c/",
            "http://a:0/",
            "http://a:99999/",
            "http://:80/",
            "http://a b/",
        ] {
            assert!(page(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn arguments() {
        let args = parse(&["https://www.example/", "--header", "A: b:c", "--header", "D:e"]).unwrap();
        assert_eq!(args.headers, [("A".into(), "b:c".into()), ("D".into(), "e".into())]);
        assert_eq!(args.sni().as_deref(), Some("www.example"));
        assert_eq!(args.request().host.as_deref(), Some("www.example"));
        // As a check without `host`.
        assert_eq!(parse(&["https://[::1]:8443/"]).unwrap().request().host, None);
        let args = parse(&["https://[::1]:8443/", "--host", "www.example"]).unwrap();
        assert_eq!(args.sni(), None);
        assert_eq!(args.request().host.as_deref(), Some("www.example"));
        for wrong in [
            &["http://a/", "--header", "nothing"][..],
            &["http://a/", "--connect", "name"],
            &["https://a/", "--verify", "--insecure"],
            &[],
        ] {
            assert_eq!(parse(wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
        let plain = parse(&["http://127.0.0.1:9/", "--verify"]).unwrap();
        assert_eq!(run(&plain).unwrap_err().to_string(), "--sni, --verify and --insecure are for https");
    }

    #[test]
    fn addresses_to_connect_to() {
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        assert_eq!(connect("192.0.2.1"), Ok(([192, 0, 2, 1].into(), None)));
        assert_eq!(connect("192.0.2.1:81"), Ok(([192, 0, 2, 1].into(), Some(81))));
        assert_eq!(connect("2001:db8::1"), Ok((v6, None)));
        assert_eq!(connect("[2001:db8::1]"), Ok((v6, None)));
        assert_eq!(connect("[2001:db8::1]:81"), Ok((v6, Some(81))));
        assert!(connect("[2001:db8::1]:x").is_err());
    }
}
