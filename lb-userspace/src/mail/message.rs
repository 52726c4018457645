//! What a mail looks like.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use lettre::{
    Address, Message,
    message::{
        Mailbox,
        header::{ContentType, HeaderName, HeaderValue},
    },
};

use crate::config::Mail;

/// How long a subject may be, in characters, without the router's name.
const MAX_SUBJECT: usize = 200;

/// One message of the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    pub subject: String,
    pub body: String,
}

/// What all mails have in common.
#[derive(Debug)]
pub(super) struct Letterhead {
    from: Mailbox,
    /// At least one.
    to: Vec<Mailbox>,
    router_id: String,
}

impl Letterhead {
    /// # Errors
    /// When an address is not one.
    pub fn new(mail: &Mail, router_id: &str) -> anyhow::Result<Self> {
        if mail.to.is_empty() {
            bail!("mail: `to` names nobody; give at least one address");
        }
        Ok(Self {
            from: mailbox("from", &mail.from)?,
            to: mail.to.iter().map(|address| mailbox("to", address)).collect::<Result<_, _>>()?,
            router_id: one_line(router_id),
        })
    }

    pub fn from(&self) -> &Address {
        &self.from.email
    }

    pub fn to(&self) -> Vec<&Address> {
        self.to.iter().map(|mailbox| &mailbox.email).collect()
    }

    /// The mail of at least one note, as it goes to the server. `dropped`: how many older ones did not fit.
    pub fn mail(&self, notes: &[Note], dropped: u64) -> Vec<u8> {
        let subject = match notes {
            [note] => one_line(&note.subject),
            _ => format!("{} changes", notes.len()),
        };
        // RFC 3834: nobody's holiday reply is to answer it.
        let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
        let mut message = Message::builder()
            .from(self.from.clone())
            .date_now()
            .message_id(Some(self.message_id()))
            .subject(format!("[{}] {subject}", self.router_id))
            .raw_header(HeaderValue::new(automatic, "auto-generated".into()))
            .header(ContentType::TEXT_PLAIN);
        for to in &self.to {
            message = message.to(to.clone());
        }
        message.body(body(notes, dropped)).expect("there are a sender and a recipient").formatted()
    }

    /// The same for all attempts, so that a server which takes a mail twice can tell.
    fn message_id(&self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        format!("<{:x}.{:016x}@{}>", now.as_micros(), fastrand::u64(..), self.from.email.domain())
    }
}

fn body(notes: &[Note], dropped: u64) -> String {
    let mut text = match notes {
        [note] => note.body.clone(),
        _ => notes
            .iter()
            .map(|note| format!("{}\n{}", one_line(&note.subject), indented(&note.body)))
            .collect(),
    };
    if dropped > 0 {
        text.push_str(&format!("\n{dropped} older messages were dropped: more came than the server took.\n"));
    }
    // The end of a mail is the end of a line anyway.
    text.truncate(text.trim_end().len());
    text
}

fn indented(body: &str) -> String {
    body.lines().map(|line| if line.is_empty() { "\n".into() } else { format!("    {line}\n") }).collect()
}

/// A header is one line, whatever the names in it hold.
fn one_line(text: &str) -> String {
    text.chars().take(MAX_SUBJECT).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn mailbox(what: &str, text: &str) -> anyhow::Result<Mailbox> {
    let mailbox: Mailbox = text.parse().with_context(|| {
        format!("mail: `{what}`: `{text}` is not a mail address; write it as `admin@example.com`")
    })?;
    if !text.is_ascii() {
        bail!("mail: `{what}`: `{text}` is not ASCII, which few servers take; give another address");
    }
    Ok(mailbox)
}
