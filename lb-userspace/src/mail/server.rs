//! One delivery to the SMTP server (RFC 5321).

use std::{fmt, net::IpAddr, time::Duration};

use anyhow::Context as _;
use lettre::{
    Address,
    transport::smtp::{
        Error,
        authentication::{Credentials, Mechanism},
        client::{AsyncSmtpConnection, TlsParameters},
        commands::{Data, Mail as MailFrom, Rcpt},
        extension::ClientId,
    },
};
use rustls::pki_types::DnsName;
use tokio::time::timeout;

use crate::config::{Mail, MailTls};

/// How long the server's goodbye is waited for: the mail is its own by then.
const GOODBYE: Duration = Duration::from_secs(2);
/// How much of an error is told, in characters.
const MAX_REASON: usize = 300;

/// Where mails go.
pub(super) struct Server {
    host: String,
    port: u16,
    encryption: Encryption,
    login: Option<Login>,
    hello: ClientId,
    /// Of a whole delivery.
    timeout: Duration,
}

enum Encryption {
    None,
    StartTls(TlsParameters),
    Tls(TlsParameters),
}

struct Login {
    credentials: Credentials,
    /// The password as it is and as it goes over the wire, to keep it out of the log if the server repeats it.
    hidden: Vec<String>,
}

/// Why a delivery failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// The server will not take it later either.
    pub permanent: bool,
    /// Without the server's name, fit for the log.
    pub reason: String,
}

impl Server {
    /// # Errors
    /// When the server's name is not one, or TLS cannot be set up.
    pub fn new(mail: &Mail) -> anyhow::Result<Self> {
        let host = &mail.server;
        if host.parse::<IpAddr>().is_err() {
            DnsName::try_from(host.as_str())
                .with_context(|| format!("mail: `server`: `{host}` is neither a host name nor an address"))?;
        }
        let encryption = match mail.tls {
            MailTls::None => Encryption::None,
            MailTls::StartTls => Encryption::StartTls(parameters(mail)?),
            MailTls::Tls => Encryption::Tls(parameters(mail)?),
        };
        let login = mail.login.as_ref().map(|login| Login {
            credentials: Credentials::new(login.user.clone(), login.password.clone()),
            hidden: forms(&login.user, &login.password),
        });
        Ok(Self {
            host: host.clone(),
            port: mail.port,
            encryption,
            login,
            hello: hello(),
            timeout: mail.timeout,
        })
    }

    /// Hands over a mail over a connection of its own. Gives the recipients that the server refused, with its words;
    /// at least one was taken.
    pub async fn deliver(
        &self,
        from: &Address,
        to: &[&Address],
        mail: &[u8],
    ) -> Result<Vec<String>, Failure> {
        match timeout(self.timeout, self.attempt(from, to, mail)).await {
            Err(_) => Err(Failure {
                permanent: false,
                reason: format!("not done within {} s", self.timeout.as_secs_f64()),
            }),
            Ok(Err(error)) => Err(Failure { permanent: error.is_permanent(), reason: self.reason(&error) }),
            Ok(Ok((mut connection, refused))) => {
                // A server that does not answer any more has the mail all the same: trying again would double it.
                let _ = timeout(GOODBYE, connection.quit()).await;
                Ok(refused)
            }
        }
    }

    async fn attempt(
        &self,
        from: &Address,
        to: &[&Address],
        mail: &[u8],
    ) -> Result<(AsyncSmtpConnection, Vec<String>), Error> {
        let mut connection = self.connect().await?;
        connection.command(MailFrom::new(Some(from.clone()), Vec::new())).await?;
        let mut refused = Vec::new();
        let mut worst = None;
        for to in to {
            match connection.command(Rcpt::new((*to).clone(), Vec::new())).await {
                Ok(_) => {}
                // Only the server's own no is about this recipient alone.
                Err(error) if error.status().is_some() => {
                    refused.push(format!("{to}: {}", self.reason(&error)));
                    // "Later" to one of them makes another attempt worthwhile.
                    worst = worst.filter(|worst: &Error| !worst.is_permanent()).or(Some(error));
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(error) = worst.filter(|_| refused.len() == to.len()) {
            return Err(error);
        }
        connection.command(Data).await?;
        connection.message(mail).await?;
        Ok((connection, refused))
    }

    /// A connection that is encrypted and logged in as configured, or none at all.
    async fn connect(&self) -> Result<AsyncSmtpConnection, Error> {
        let from_the_beginning = match &self.encryption {
            Encryption::Tls(parameters) => Some(parameters.clone()),
            Encryption::None | Encryption::StartTls(_) => None,
        };
        let server = (self.host.as_str(), self.port);
        // A name may have a dead address before one that answers.
        let each = Some(self.timeout / 2);
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(server, each, &self.hello, from_the_beginning, None).await?;
        if let Encryption::StartTls(parameters) = &self.encryption {
            connection.starttls(parameters.clone(), &self.hello).await?;
        }
        if let Some(Login { credentials, .. }) = &self.login {
            connection.auth(&[Mechanism::Plain, Mechanism::Login], credentials).await?;
        }
        Ok(connection)
    }

    fn reason(&self, error: &Error) -> String {
        let mut reason = error.to_string();
        for form in self.login.iter().flat_map(|login| &login.hidden) {
            reason = reason.replace(form, "***");
        }
        reason.chars().take(MAX_REASON).map(|c| if c.is_control() { ' ' } else { c }).collect()
    }
}

/// What a server may have seen of a password: as it is, and by AUTH LOGIN and PLAIN (RFC 4616).
fn forms(user: &str, password: &str) -> Vec<String> {
    if password.is_empty() {
        return Vec::new();
    }
    // The longest first: it must not be torn apart by another one.
    let plain = base64(format!("\0{user}\0{password}").as_bytes());
    vec![plain, base64(password.as_bytes()), password.to_owned()]
}

/// RFC 4648, without the padding: whoever repeats it may leave that out.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len() * 4 / 3 + 1);
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        // Six bits each; a byte needs two letters.
        let letters = (0..=chunk.len()).map(|at| ALPHABET[(bits >> (18 - 6 * at)) as usize & 63]);
        text.extend(letters.map(char::from));
    }
    text
}

fn parameters(mail: &Mail) -> anyhow::Result<TlsParameters> {
    TlsParameters::builder(mail.server.clone())
        .dangerous_accept_invalid_certs(!mail.verify)
        .dangerous_accept_invalid_hostnames(!mail.verify)
        .build()
        .context("mail: cannot set up TLS")
}

/// This machine's name if it is one that a server can accept, otherwise an address literal (RFC 5321 4.1.4).
fn hello() -> ClientId {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    match name {
        Some(name) if DnsName::try_from(name.as_str()).is_ok() => ClientId::Domain(name),
        _ => ClientId::default(),
    }
}

/// As in the log.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "server {} port {}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
            ("fooba", "Zm9vYmE"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd, 0xfb]), "//79+w");
    }

    #[test]
    fn a_password_has_three_forms() {
        assert_eq!(forms("user", "secret"), ["AHVzZXIAc2VjcmV0", "c2VjcmV0", "secret"]);
        assert_eq!(forms("user", ""), [""; 0]);
    }
}
