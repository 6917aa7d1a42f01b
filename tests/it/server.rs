//! The daemon's own port, by whoever reaches it: it only tells, and nobody takes more than a part of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::support::{Process, free_address, zoneward};

fn daemon(folder: &Path) -> Process {
    let address = free_address();
    let mut command = zoneward();
    command
        .args(["run", "--audit-directory", folder.to_str().unwrap()])
        .env("ZONEWARD_PROMETHEUS__URL", "http://127.0.0.1:9")
        .env("ZONEWARD_DETECT__CYCLE", "1s")
        .env("ZONEWARD_SERVE__LISTEN", address.to_string())
        .stderr(std::process::Stdio::null());
    Process::start(&mut command, address, "/healthz")
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    stream
}

/// Status and the rest of what is answered to these bytes; nothing if the connection is just closed.
fn ask(address: SocketAddr, request: &[u8]) -> Option<(u16, String)> {
    let mut stream = connect(address);
    let _closed_early = stream.write_all(request);
    let mut answer = Vec::new();
    let _closed = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer))
}

fn request(method: &str, path: &str, more: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nHost: zoneward\r\nConnection: close\r\n{more}\r\n").into_bytes()
}

const PATHS: [&str; 5] = ["/", "/status.json", "/metrics", "/healthz", "/readyz"];

#[test]
fn it_is_read_and_nothing_else_whatever_the_method_and_the_path() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon(folder.path());
    for path in PATHS {
        let told = ask(daemon.address, &request("GET", path, "")).unwrap();
        assert!(matches!(told.0, 200 | 503), "{told:?}");
        let head = ask(daemon.address, &request("HEAD", path, "")).unwrap();
        assert_eq!((head.0, head.1.split_once("\r\n\r\n").unwrap().1), (told.0, ""), "{path}");
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "ZONE"] {
            let body = "Content-Length: 2\r\nX-HTTP-Method-Override: GET\r\n";
            let (status, answer) = ask(daemon.address, &[&request(method, path, body)[..], b"{}"].concat()).unwrap();
            assert_eq!(status, 405, "{method} {path}: {answer}");
            assert!(!answer.contains("Access-Control"), "nobody else's page may ask");
        }
    }
    let elsewhere = [
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/status.json/",
        "/status.json/../metrics",
        "/metrics%00",
        "/metrics;a",
        "/index.html",
        "/debug/pprof/",
        "/isolate",
        "\\..\\..\\etc",
    ];
    for path in elsewhere {
        let (status, answer) = ask(daemon.address, &request("GET", path, "")).unwrap();
        assert!(matches!(status, 400 | 404), "{path}: {answer}");
        assert!(!answer.contains("root:"), "{path}");
    }
    // What a person may ask the page for is text on it.
    let (status, page) =
        ask(daemon.address, &request("GET", "/?service=%22%3E%3Cscript%3Ealert(1)%3C/script%3E", "")).unwrap();
    assert!(status == 200 && !page.contains("<script>alert"), "{page}");
    for garbage in [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"GET\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[0; 64]]
    {
        let answer = ask(daemon.address, garbage);
        assert!(answer.as_ref().is_none_or(|(status, _)| *status >= 400), "{answer:?}");
    }
    assert_eq!(daemon.get("/healthz").0, 200);
    assert!(daemon.terminate().success());
}

#[test]
fn who_sends_much_or_holds_many_connections_keeps_nobody_else_out() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon(folder.path());
    let long = "x".repeat(1 << 20);
    let header = ask(daemon.address, &request("GET", "/healthz", &format!("X-Long: {long}\r\n")));
    assert!(header.as_ref().is_none_or(|(status, _)| *status == 431), "{:?}", header.map(|it| it.0));
    let path = ask(daemon.address, &request("GET", &format!("/?service={long}"), ""));
    assert!(path.as_ref().is_none_or(|(status, _)| matches!(status, 414 | 431)), "{:?}", path.map(|it| it.0));
    let many: String = (0..2_000).map(|i| format!("X-{i}: 1\r\n")).collect();
    let headers = ask(daemon.address, &request("GET", "/healthz", &many));
    assert!(headers.as_ref().is_none_or(|(status, _)| *status == 431), "{:?}", headers.map(|it| it.0));

    // Heads that never end, and answers that are never read.
    let begun = |bytes: &[u8]| {
        let mut stream = connect(daemon.address);
        stream.write_all(bytes).unwrap();
        stream
    };
    let mut held: Vec<TcpStream> = (0..300).map(|_| begun(b"GET /healthz HTTP/1.1\r\nHost: zo")).collect();
    held.extend((0..50).map(|_| begun(b"GET / HTTP/1.1\r\nHost: zoneward\r\n\r\n")));
    for path in PATHS {
        assert!(matches!(daemon.get(path).0, 200 | 503), "{path}");
    }
    let mut rest = Vec::new();
    let ended = held[0].read_to_end(&mut rest);
    assert!(rest.is_empty() && ended.is_ok_and(|read| read == 0), "the oldest made room");
    drop(held);
    assert_eq!(daemon.get("/healthz").0, 200);
    assert!(daemon.terminate().success());
}
