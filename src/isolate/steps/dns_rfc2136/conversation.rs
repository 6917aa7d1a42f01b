//! A conversation with the DNS server over TCP. Every message is signed (RFC 8945), questions too, so that nobody
//! else's answer is believed; and every refusal is told as what a person has to do.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::StreamExt;
use hickory_net::runtime::{RuntimeProvider, TokioRuntimeProvider};
use hickory_net::tcp::TcpStream;
use hickory_net::{BufDnsStreamHandle, DnsStreamHandle};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode, SerialMessage};
use hickory_proto::rr::rdata::tsig::TsigError;
use hickory_proto::rr::{Name, Record, RecordType, TSigVerifier, TSigner};
use jiff::{SignedDuration, Timestamp};
use tokio::time::timeout;

use super::listing::Listing;
use super::settings::{Settings, marker_name, parse_name};
use crate::ports::StepError;

/// How far the server's clock may be from ours, as RFC 8945 recommends.
const FUDGE_SECONDS: u16 = 300;

const LARGEST_KEY_FILE: u64 = 4096;

pub(super) fn transient(why: impl Into<String>) -> StepError {
    StepError::Transient { why: why.into(), retry_after: SignedDuration::from_secs(2) }
}

pub(super) fn permanent(why: impl Into<String>) -> StepError {
    StepError::Permanent { why: why.into() }
}

pub(super) struct Conversation<'a> {
    settings: &'a Settings,
    server: SocketAddr,
    dns_zone: Name,
    key: TSigner,
    stream: TcpStream<<TokioRuntimeProvider as RuntimeProvider>::Tcp>,
    outbox: BufDnsStreamHandle,
}

impl<'a> Conversation<'a> {
    /// Reads the key anew, as it may be rotated.
    pub async fn open(settings: &'a Settings) -> Result<Self, StepError> {
        let server: SocketAddr = settings
            .server
            .parse()
            .map_err(|_| permanent(format!("the DNS server `{}` is not an address and a port", settings.server)))?;
        let dns_zone = parse_name(&settings.zone).map_err(permanent)?;
        let key = read_key(settings).await.map_err(permanent)?;
        let connection = TokioRuntimeProvider::new().connect_tcp(server, None, Some(settings.timeout.unsigned())).await;
        let connection =
            connection.map_err(|e| transient(format!("the DNS server {server} can't be reached over TCP: {e}")))?;
        let (stream, outbox) = TcpStream::from_stream(connection, server);
        Ok(Self { settings, server, dns_zone, key, stream, outbox })
    }

    /// What the server has at the name and beside it.
    pub async fn read(&mut self, name: &Name) -> Result<Listing, StepError> {
        let marker_name = marker_name(name).map_err(permanent)?;
        Ok(Listing {
            dns_zone: self.dns_zone.clone(),
            a: self.ask(name, RecordType::A).await?,
            aaaa: self.ask(name, RecordType::AAAA).await?,
            txt: self.ask(&marker_name, RecordType::TXT).await?,
            name: name.clone(),
            marker_name,
            ours: BTreeSet::new(),
        })
    }

    async fn ask(&mut self, name: &Name, kind: RecordType) -> Result<Vec<Record>, StepError> {
        let mut question = Message::query();
        question.add_query(Query::query(name.clone(), kind));
        let answer = self.exchange(question, name).await?;
        let Settings { server, zone, .. } = self.settings;
        if !answer.authoritative {
            let hint = "name the primary server of that zone, and the zone that has the name itself";
            return Err(permanent(format!("the DNS server {server} does not keep {name} in the zone {zone}: {hint}")));
        }
        let at_name = |kind: RecordType| {
            let answers = answer.answers.iter();
            answers.filter(move |record| record.name == *name && record.record_type() == kind)
        };
        if at_name(RecordType::CNAME).next().is_some() {
            let hint = "name what it stands for";
            return Err(permanent(format!("{name} is an alias (CNAME), which has no addresses of its own: {hint}")));
        }
        Ok(at_name(kind).cloned().collect())
    }

    /// Carries an update out: whole, or not at all.
    pub async fn update(&mut self, message: Message, name: &Name) -> Result<(), StepError> {
        self.exchange(message, name).await.map(|_| ())
    }

    async fn exchange(&mut self, message: Message, name: &Name) -> Result<Message, StepError> {
        let server = self.server;
        let (id, code) = (message.id, message.op_code);
        let (bytes, mut verifier) = self.signed(message, name)?;
        let lost = |why: String| transient(format!("the DNS server {server} {why}"));
        self.outbox.send(SerialMessage::new(bytes, server)).map_err(|e| lost(format!("takes no message: {e}")))?;
        let limit = self.settings.timeout;
        let bytes = match timeout(limit.unsigned(), self.stream.next()).await {
            Ok(Some(Ok(answer))) => answer.into_parts().0,
            Ok(Some(Err(e))) => return Err(lost(format!("broke the connection off: {e}"))),
            Ok(None) => return Err(lost("closed the connection instead of answering".to_owned())),
            Err(_) => return Err(lost(format!("gave no answer within {limit}"))),
        };
        let answer = Message::from_vec(&bytes).ok();
        let answer = answer.filter(|a| a.id == id && a.message_type == MessageType::Response && a.op_code == code);
        let answer = answer.ok_or_else(|| lost("gave an answer that makes no sense".to_owned()))?;
        let no_such_name = answer.response_code == ResponseCode::NXDomain && code == OpCode::Query;
        if answer.response_code != ResponseCode::NoError && !no_such_name {
            return Err(self.refusal(&answer, name));
        }
        // A refusal is told as it came: a server that doesn't know the key can't sign it.
        verifier.verify(&bytes).is_ok().then_some(answer).ok_or_else(|| {
            lost(format!(
                "or something in its place gave an answer without the signature of `{}`",
                self.settings.key_name
            ))
        })
    }

    /// The message as it is sent, and what tells whether an answer to it is authentic.
    fn signed(&self, mut message: Message, name: &Name) -> Result<(Vec<u8>, TSigVerifier), StepError> {
        let verifier = message.finalize(&self.key, seconds_since_epoch()).ok().flatten();
        let bytes = message.to_vec().ok().filter(|bytes| !cut_off(bytes));
        let too_large =
            || permanent(format!("the records of {name} don't fit into one DNS message: have fewer of them"));
        bytes.zip(verifier).ok_or_else(too_large)
    }

    /// Says what was refused, and what a person has to look at. Never names the secret.
    fn refusal(&self, answer: &Message, name: &Name) -> StepError {
        let Settings { server, zone, key_name, .. } = self.settings;
        let (code, update) = (answer.response_code, answer.op_code == OpCode::Update);
        let why = if let Some(error) = answer.signature().and_then(|signature| signature.data.error) {
            self.refused_key(error)
        } else if matches!(code, ResponseCode::NXRRSet | ResponseCode::YXRRSet | ResponseCode::NXDomain) {
            return transient(format!(
                "the records of {name} were changed by somebody else just now; they are read anew"
            ));
        } else if code == ResponseCode::Refused && update {
            format!(
                "the key `{key_name}` may not change {name}: its update-policy must grant A and AAAA at {name}, and \
                 TXT at _zoneward.{name}"
            )
        } else if code == ResponseCode::Refused {
            format!(
                "it does not answer us about {name}: allow it (allow-query), and let the server keep the zone {zone}"
            )
        } else if matches!(code, ResponseCode::NotAuth | ResponseCode::NotZone) {
            format!("{name} is not in a zone {zone} of its own ({code}): it must be the primary of the zone")
        } else if matches!(code, ResponseCode::FormErr | ResponseCode::NotImp) {
            format!("it does not understand us ({code}): it must take dynamic updates (RFC 2136) and TSIG (RFC 8945)")
        } else {
            return transient(format!("the DNS server {server} failed at {name}: {code}"));
        };
        permanent(format!("the DNS server {server} refuses: {why}"))
    }

    fn refused_key(&self, error: TsigError) -> String {
        let Settings { key_name, key_file, .. } = self.settings;
        let (algorithm, key_file) = (self.key.algorithm(), key_file.display());
        match error {
            TsigError::BadKey => {
                let hint = "compare key_name and algorithm with the server's, and what the key may change there";
                format!("it has no key `{key_name}` of {algorithm}, or not for this: {hint}")
            }
            TsigError::BadSig => {
                format!("the secret in {key_file} is not that of its key `{key_name}`: compare it with the server's")
            }
            TsigError::BadTime => format!("its clock and ours are more than {FUDGE_SECONDS} s apart: set them both"),
            TsigError::BadTrunc | TsigError::Unknown(_) => {
                format!("it can't use the signature of the key `{key_name}` ({error:?}): compare it with the server's")
            }
        }
    }
}

/// Whether the encoder left records out, as there was no room: then it says so in the header.
fn cut_off(message: &[u8]) -> bool {
    message.get(2).is_none_or(|flags| flags & 0b10 != 0)
}

#[allow(clippy::disallowed_methods, reason = "an edge: the server compares it with its own clock")]
fn seconds_since_epoch() -> u64 {
    Timestamp::now().as_second().unsigned_abs()
}

/// No error here may quote what is in the file.
async fn read_key(settings: &Settings) -> Result<TSigner, String> {
    let path = settings.key_file.display();
    let text =
        read_small_file(&settings.key_file).await.map_err(|e| format!("the DNS key in {path} can't be read: {e}"))?;
    let secret = BASE64.decode(text.trim_ascii()).ok().filter(|secret| !secret.is_empty()).ok_or_else(|| {
        format!("{path} must hold nothing but the DNS key's secret in base64, as between the quotes after `secret`")
    })?;
    let name = parse_name(&settings.key_name)?;
    TSigner::new(secret, settings.algorithm.into(), name, FUDGE_SECONDS)
        .map_err(|_| format!("the DNS key `{}` can't be used", settings.key_name))
}

async fn read_small_file(path: &Path) -> std::io::Result<Vec<u8>> {
    let found = tokio::fs::metadata(path).await?;
    if !found.is_file() || found.len() > LARGEST_KEY_FILE {
        return Err(std::io::Error::other(format!("it is no file of at most {LARGEST_KEY_FILE} bytes")));
    }
    tokio::fs::read(path).await
}
