//! What clients do: HTTP requests with curl, many quick connections, UDP requests, transfers.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    process::Stdio,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    Netns,
    stream::{self, Stream},
};

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(5);
/// How long one transfer may take, in seconds.
const TRANSFER: &str = "60";

/// How often each answer came.
pub type Counts = BTreeMap<String, usize>;

/// A client machine.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its namespace.
    pub netns: Netns,
}

impl Client {
    /// The client in `netns`.
    #[must_use]
    pub const fn new(netns: Netns) -> Self {
        Self { netns }
    }

    /// One HTTP request with curl: the body without the white space at its ends.
    ///
    /// # Errors
    /// When curl fails or the status is not a success.
    pub fn curl(&self, url: &str) -> Result<String> {
        self.curl_with(&[], url)
    }

    /// As [`Client::curl`], with more arguments for curl.
    ///
    /// # Errors
    /// When curl fails or the status is not a success.
    pub fn curl_with(&self, arguments: &[&str], url: &str) -> Result<String> {
        let out = self
            .netns
            .command("curl")
            .args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "5"])
            .args(arguments)
            .arg(url)
            .output()
            .context("`curl` cannot be run")?;
        if !out.status.success() {
            bail!("curl {url} in {}: {}", self.netns.name(), String::from_utf8_lossy(&out.stderr).trim());
        }
        Ok(String::from_utf8(out.stdout)?.trim().to_owned())
    }

    /// `count` HTTP requests with curl, one after the other: the answers in order.
    ///
    /// # Errors
    /// The first that fails.
    pub fn curl_each(&self, url: &str, count: usize) -> Result<Vec<String>> {
        (0..count).map(|_| self.curl(url)).collect()
    }

    /// `count` HTTP requests to `GET /`, each on its own TCP connection, one after the other, without curl.
    ///
    /// # Errors
    /// The first connection that fails.
    pub fn http_counts(&self, server: SocketAddr, count: usize) -> Result<Counts> {
        self.netns.enter(|| {
            let mut counts = Counts::new();
            for number in 0..count {
                let answer = http_get(server).with_context(|| format!("request {number} to {server}"))?;
                *counts.entry(answer).or_default() += 1;
            }
            Ok(counts)
        })
    }

    /// `count` UDP requests, each from a new source port: how often each server answered.
    ///
    /// # Errors
    /// When an answer does not come within 5 s, comes from another address or has another payload.
    pub fn udp_counts(&self, server: SocketAddr, count: usize) -> Result<Counts> {
        self.netns.enter(|| {
            let mut counts = Counts::new();
            for number in 0..count {
                let name =
                    udp_request(server, number).with_context(|| format!("datagram {number} to {server}"))?;
                *counts.entry(name).or_default() += 1;
            }
            Ok(counts)
        })
    }

    /// Opens a TCP connection and leaves it open.
    ///
    /// # Errors
    /// When the server does not accept it within 5 s.
    pub fn connect(&self, server: SocketAddr) -> Result<TcpStream> {
        self.netns.enter(|| {
            let stream = TcpStream::connect_timeout(&server, REQUEST)?;
            stream.set_read_timeout(Some(REQUEST))?;
            stream.set_write_timeout(Some(REQUEST))?;
            Ok(stream)
        })
    }

    /// Downloads `len` bytes of the lab's stream with curl from `server` (such as "192.168.10.50" or `[fd00::1]:80`)
    /// and compares their SHA-256 with what the real server says it sent. Returns the sum.
    ///
    /// # Errors
    /// When the transfer takes longer than a minute, or length or sum are not what was sent.
    pub fn download(&self, server: &str, len: u64) -> Result<String> {
        let url = format!("http://{server}/bytes/{len}");
        let mut curl = self
            .netns
            .command("curl")
            .args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", TRANSFER, &url])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("`curl` cannot be run")?;
        let (received, sum) = stream::checksum(&mut curl.stdout.take().context("no pipe")?)?;
        let out = curl.wait_with_output()?;
        ensure!(out.status.success(), "curl {url}: {}", String::from_utf8_lossy(&out.stderr).trim());
        ensure!(received == len, "{received} of {len} bytes came from {url}");
        let sent = self.curl_with(&["--max-time", TRANSFER], &format!("http://{server}/sum/{len}"))?;
        ensure!(sum == sent, "{url}: received SHA-256 {sum}, sent {sent}");
        Ok(sum)
    }

    /// Uploads `len` bytes of the lab's stream with curl and compares their SHA-256 with what the server received.
    ///
    /// # Errors
    /// When the transfer takes longer than a minute, or length or sum are not what was sent.
    pub fn upload(&self, server: &str, len: u64) -> Result<String> {
        let url = format!("http://{server}/upload");
        let mut curl = self
            .netns
            .command("curl")
            .args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", TRANSFER])
            .args(["--data-binary", "@-", &url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("`curl` cannot be run")?;
        let sent = stream::copy(&mut Stream::new(len), &mut curl.stdin.take().context("no pipe")?);
        let out = curl.wait_with_output()?;
        ensure!(out.status.success(), "curl {url}: {}", String::from_utf8_lossy(&out.stderr).trim());
        let (_, sum) = sent?;
        let received = String::from_utf8(out.stdout)?;
        ensure!(received.trim() == format!("{len} {sum}"), "{url}: sent {len} {sum}, received {received}");
        Ok(sum)
    }
}

/// `address:port` of a URL, with the brackets that IPv6 needs.
#[must_use]
pub fn authority(address: IpAddr, port: u16) -> String {
    SocketAddr::new(address, port).to_string()
}

pub(crate) fn http_get(server: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, REQUEST)?;
    stream.set_read_timeout(Some(REQUEST))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no end of the headers")?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "not a success: {head}");
    Ok(body.trim().to_owned())
}

fn udp_request(server: SocketAddr, number: usize) -> Result<String> {
    let socket = udp_socket(server.is_ipv4())?;
    socket.set_read_timeout(Some(REQUEST))?;
    // A connected socket takes answers from the server's own address only.
    socket.connect(server)?;
    let question = format!("datagram {number}");
    socket.send(question.as_bytes())?;
    let mut buffer = [0; 2048];
    let len = socket.recv(&mut buffer)?;
    let answer = std::str::from_utf8(&buffer[..len])?;
    let name = answer.strip_suffix(&question).with_context(|| format!("unexpected answer {answer:?}"))?;
    Ok(name.trim().to_owned())
}

/// A socket on a port that this process has not used before (within 40,000). The kernel's choice is random and comes
/// back to a port that the director still remembers.
fn udp_socket(ipv4: bool) -> Result<UdpSocket> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let any: IpAddr = if ipv4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    for _ in 0..100 {
        let port = 20_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 40_000;
        match UdpSocket::bind((any, port)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            bound => return Ok(bound?),
        }
    }
    bail!("no free UDP port")
}
