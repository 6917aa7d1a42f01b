//! Secrets that can be told from everything else, and the search for them in all that is put out.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

/// Every secret of the tests has this in it; and a name server's, as its file has it.
const MARK: &str = "planted";
pub const TSIG: &str = "c2VjcmV0IG9mIHRoZSB0ZXN0cyBvZiB6b25ld2FyZCE=";

/// A file that holds a secret.
pub fn file(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(format!("{name}.file"));
    std::fs::write(&path, format!("{MARK}-{name}-of-the-tests\n")).unwrap();
    path
}

/// The mark as it may stand in a text: as it is, and in base64, where there are three ways by where it begins.
fn marks() -> Vec<String> {
    let shifted = |by: usize| {
        let text = BASE64.encode(format!("{}{MARK}", " ".repeat(by)));
        text[(8 * by).div_ceil(6)..(8 * (by + MARK.len())) / 6].to_owned()
    };
    let decoded = String::from_utf8(BASE64.decode(TSIG).unwrap()).unwrap();
    let mut marks = vec![MARK.to_owned(), TSIG[..20].to_owned(), decoded[..15].to_owned()];
    marks.extend((0..3).map(shifted));
    marks
}

/// Fails if a secret stands in it.
pub fn none_in(what: &str, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for mark in marks() {
        if let Some(at) = text.find(&mark) {
            let (from, to) = (text.floor_char_boundary(at.saturating_sub(300)), text.ceil_char_boundary(at + 100));
            panic!("{what} has `{mark}`: …{}…", &text[from..to.min(text.len())]);
        }
    }
}

pub fn unpacked(path: &Path) -> Vec<u8> {
    let mut unpacked = Vec::new();
    let packed = std::fs::File::open(path).unwrap();
    flate2::read::MultiGzDecoder::new(packed).read_to_end(&mut unpacked).unwrap();
    unpacked
}

/// In no file under the folder, nor in what is packed there. Returns how many were read.
pub fn none_under(folder: &Path) -> usize {
    let mut read = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read += none_under(&path);
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        none_in(&path.display().to_string(), &bytes);
        if path.extension().is_some_and(|it| it == "gz") {
            none_in(&format!("{}, unpacked", path.display()), &unpacked(&path));
        }
        read += 1;
    }
    read
}

#[test]
fn a_secret_is_found_however_it_is_written() {
    for shown in ["x planted-key y", "eHggcGxhbnRlZC1rZXk=", "cGxhbnRlZC1rZXk=", "eCBwbGFudGVkLWtleQ==", TSIG] {
        assert!(std::panic::catch_unwind(|| none_in("it", shown.as_bytes())).is_err(), "{shown}");
    }
    none_in("it", b"nothing of the kind");
}

/// One request as it came, head and body.
#[derive(Debug, Clone)]
pub struct Request {
    pub head: String,
    pub body: String,
}

/// Keeps what it is asked, and answers by what is said of it.
#[derive(Clone)]
pub struct Server {
    pub address: SocketAddr,
    pub requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// `answer` gives status and body, of the request and how many came before.
    pub fn start(answer: impl Fn(&Request, usize) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { address: listener.local_addr().unwrap(), requests: Arc::default() };
        let (requests, answer) = (Arc::clone(&server.requests), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (requests, answer) = (Arc::clone(&requests), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    let Some(request) = read(&mut stream) else { return };
                    let before = {
                        let mut requests = requests.lock().unwrap();
                        requests.push(request.clone());
                        requests.len() - 1
                    };
                    let (status, body) = answer(&request, before);
                    let length = body.len();
                    let _gone = write!(
                        stream,
                        "HTTP/1.1 {status} As Told\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
                         Connection: close\r\n\r\n{body}"
                    );
                });
            }
        });
        server
    }

    pub fn bodies(&self) -> Vec<String> {
        self.requests.lock().unwrap().iter().map(|request| request.body.clone()).collect()
    }

    pub fn got(&self, words: &str) -> bool {
        self.requests.lock().unwrap().iter().any(|it| it.head.contains(words) || it.body.contains(words))
    }
}

fn read(stream: &mut TcpStream) -> Option<Request> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 16 * 1024]);
    loop {
        let length = stream.read(&mut piece).ok().filter(|length| *length > 0)?;
        bytes.extend_from_slice(&piece[..length]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        if body.len() >= length.unwrap_or(0) {
            return Some(Request { head: head.to_owned(), body: body.to_owned() });
        }
    }
}
