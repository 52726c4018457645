//! A mail server that keeps what it gets.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;

use crate::config::MailTls;

/// How the server is out of the ordinary.
#[derive(Debug, Clone)]
pub struct Behaviour {
    /// The encryption that it offers or, for [`MailTls::Tls`], expects.
    pub tls: MailTls,
    /// It says nothing before [`Sink::open`].
    pub gated: bool,
    /// So many first connections are closed in the middle of the mail.
    pub hang_up: usize,
    /// Beginnings of recipients that it does not know.
    pub refuse: Vec<&'static str>,
    /// It refuses every login, with the words that it has heard.
    pub parrot: bool,
    /// It does not answer QUIT, nor does it close the connection.
    pub no_goodbye: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            tls: MailTls::None,
            gated: false,
            hang_up: 0,
            refuse: Vec::new(),
            parrot: false,
            no_goodbye: false,
        }
    }
}

/// What the server got.
#[derive(Debug, Clone, Default)]
pub struct Received {
    pub from: String,
    pub to: Vec<String>,
    pub login: Option<String>,
    pub encrypted: bool,
    data: String,
}

impl Received {
    /// A header that stands in one line.
    pub fn header(&self, name: &str) -> &str {
        let (head, _) = self.data.split_once("\r\n\r\n").expect("an empty line");
        head.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).expect(name)
    }

    pub fn body(&self) -> &str {
        self.data.split_once("\r\n\r\n").expect("an empty line").1
    }
}

pub struct Sink {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    behaviour: Behaviour,
    gate: Semaphore,
    connections: Mutex<usize>,
    mails: Mutex<Vec<Received>>,
}

impl Sink {
    pub async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            gate: Semaphore::new(0),
            behaviour,
            connections: Mutex::new(0),
            mails: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *accepting.connections.lock().expect("no panic") += 1;
                // A client that goes away is its own business: what counts is what has arrived.
                tokio::spawn(Arc::clone(&accepting).serve(stream));
            }
        });
        Self { address, shared }
    }

    pub fn open(&self) {
        self.shared.gate.add_permits(1000);
    }

    pub fn connections(&self) -> usize {
        *self.shared.connections.lock().expect("no panic")
    }

    pub fn mails(&self) -> Vec<Received> {
        self.shared.mails.lock().expect("no panic").clone()
    }
}

impl Shared {
    async fn serve(self: Arc<Self>, stream: TcpStream) -> io::Result<()> {
        if self.behaviour.gated {
            self.gate.acquire().await.expect("never closed").forget();
        }
        let stream = match self.behaviour.tls {
            MailTls::Tls => return self.talk(acceptor().accept(stream).await?, true, true).await.map(drop),
            MailTls::None | MailTls::StartTls => self.talk(stream, false, true).await?,
        };
        match stream {
            Some(stream) => self.talk(acceptor().accept(stream).await?, true, false).await.map(drop),
            None => Ok(()),
        }
    }

    /// Until QUIT, or STARTTLS: then it gives the stream back.
    async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        encrypted: bool,
        greet: bool,
    ) -> io::Result<Option<S>> {
        let mut stream = BufReader::new(stream);
        let mut mail = Received { encrypted, ..Received::default() };
        if greet {
            stream.write_all(b"220 sink\r\n").await?;
        }
        let hang_up = *self.connections.lock().expect("no panic") <= self.behaviour.hang_up;
        let mut line = String::new();
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(None);
            }
            let (verb, rest) = line.trim_end().split_once([' ', ':']).unwrap_or((line.trim_end(), ""));
            let answer = match verb {
                "EHLO" if self.behaviour.tls == MailTls::StartTls && !encrypted => {
                    "250-sink\r\n250 STARTTLS".into()
                }
                "EHLO" => "250-sink\r\n250 AUTH PLAIN LOGIN".into(),
                "STARTTLS" => {
                    stream.write_all(b"220 go\r\n").await?;
                    return Ok(Some(stream.into_inner()));
                }
                "AUTH" if self.behaviour.parrot => format!("535 what is {rest}?"),
                "AUTH" => {
                    mail.login = Some(rest.into());
                    "235 welcome".into()
                }
                "MAIL" => {
                    mail.from = rest.trim_start_matches("FROM:").into();
                    "250 fine".into()
                }
                "RCPT" => {
                    let to = rest.trim_start_matches("TO:");
                    if self.behaviour.refuse.iter().any(|start| to.trim_start_matches('<').starts_with(start))
                    {
                        "550 nobody of this name lives here".into()
                    } else {
                        mail.to.push(to.into());
                        "250 fine".to_string()
                    }
                }
                "DATA" if hang_up => return Ok(None),
                "DATA" => {
                    stream.write_all(b"354 go on\r\n").await?;
                    mail.data = data(&mut stream).await?;
                    self.mails.lock().expect("no panic").push(std::mem::take(&mut mail));
                    "250 taken".into()
                }
                "QUIT" if self.behaviour.no_goodbye => {
                    self.gate.acquire().await.expect("never closed").forget();
                    return Ok(None);
                }
                "QUIT" => "221 bye".into(),
                _ => "500 what?".into(),
            };
            stream.write_all(format!("{answer}\r\n").as_bytes()).await?;
            stream.flush().await?;
        }
    }
}

/// RFC 5321 4.5.2: a line with a dot alone is the end, a dot before another is taken away.
async fn data<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) -> io::Result<String> {
    let mut data = String::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match line.strip_prefix('.') {
            Some("\r\n") => return Ok(data),
            Some(rest) => data.push_str(rest),
            None => data.push_str(&line),
        }
    }
}

/// With a certificate of its own making, which nobody trusts.
fn acceptor() -> TlsAcceptor {
    let names = ["localhost", "127.0.0.1"].map(ToOwned::to_owned);
    let made = rcgen::generate_simple_self_signed(names).expect("good names");
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring knows them")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .expect("they belong together");
    TlsAcceptor::from(Arc::new(config))
}
