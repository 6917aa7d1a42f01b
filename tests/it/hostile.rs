//! Servers that are down, slow, broken or lying: each gets a message that names the thing, and nothing is decided.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::support::{Process, eventually, free_address, get, json_lines, run, stderr, stdout, text, zoneward};

/// Answers every request by this.
fn server(answer: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = std::sync::Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer) = (stream.unwrap(), std::sync::Arc::clone(&answer));
            std::thread::spawn(move || {
                let mut head = vec![0; 64 * 1024];
                let _read = stream.read(&mut head);
                answer(&mut stream);
            });
        }
    });
    address
}

fn reply(status: &'static str, kind: &'static str, body: &'static str) -> impl Fn(&mut TcpStream) + Send + Sync {
    move |stream| {
        let length = body.len();
        let _gone = write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
    }
}

fn backtest(address: SocketAddr) -> std::process::Output {
    zoneward()
        .args(["backtest", "--config", "config/default.yaml"])
        .args(["--start", "2026-01-01T00:00:00Z", "--end", "2026-01-01T00:05:00Z", "--output", "json"])
        .env("ZONEWARD_PROMETHEUS__URL", format!("http://{address}"))
        .env("ZONEWARD_PROMETHEUS__TIMEOUT", "2s")
        .env("ZONEWARD_PROMETHEUS__MAX_RESPONSE", "8MiB")
        .output()
        .unwrap()
}

fn refused(address: SocketAddr, expected: &[&str]) {
    let output = backtest(address);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(stdout(&output), "", "nothing is decided");
    for words in expected.iter().chain(&[address.to_string().as_str()]) {
        assert!(said.contains(words), "missing: {words}\n{said}");
    }
}

#[test]
fn a_server_that_is_down_is_named() {
    refused(free_address(), &["can't be reached", "refused", "prometheus.url"]);
}

#[test]
fn a_slow_server_is_not_waited_for() {
    refused(server(|_| std::thread::sleep(Duration::from_secs(30))), &["no answer within 2 s"]);
}

#[test]
fn an_error_page_is_shown_by_its_start() {
    let page = reply("500 Internal Server Error", "text/html", "<html>upstream exploded</html>");
    refused(server(page), &["an error (HTTP 500", "upstream exploded"]);
}

#[test]
fn a_web_page_is_not_mistaken_for_an_answer() {
    let page = reply("200 OK", "text/html", "<html><title>Sign in</title></html>");
    refused(server(page), &["not Prometheus' JSON", "Sign in", "is prometheus.url the base address"]);
}

#[test]
fn the_servers_own_reason_is_passed_on() {
    let error = reply(
        "422 Unprocessable Entity",
        "application/json",
        r#"{"status":"error","errorType":"execution","error":"query processing would load too many samples"}"#,
    );
    refused(server(error), &["refused the query (HTTP 422", "too many samples"]);
}

#[test]
fn a_truncated_answer_is_no_answer() {
    let cut = |stream: &mut TcpStream| {
        let _gone = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{{\"status\":\"succ");
    };
    refused(server(cut), &["broke off its answer after"]);
}

#[test]
fn an_answer_of_the_wrong_type_is_refused() {
    let vector =
        reply("200 OK", "application/json", r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#);
    refused(server(vector), &["something else than a matrix"]);
}

#[test]
fn a_huge_answer_is_given_up_whether_or_not_it_says_its_length() {
    const SIZE: usize = 200 << 20;
    let flood = |length: bool| {
        move |stream: &mut TcpStream| {
            let length = if length { format!("Content-Length: {SIZE}\r\n") } else { String::new() };
            if write!(stream, "HTTP/1.1 200 OK\r\n{length}Connection: close\r\n\r\n").is_err() {
                return;
            }
            let chunk = vec![b' '; 1 << 20];
            let mut sent = 0;
            while sent < SIZE && stream.write_all(&chunk).is_ok() {
                sent += chunk.len();
            }
        }
    };
    for length in [true, false] {
        refused_as_too_large(server(flood(length)));
    }
}

fn refused_as_too_large(address: SocketAddr) {
    let output = backtest(address);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("larger than 8 MiB (prometheus.max_response)"), "{}", stderr(&output));
}

#[test]
fn warnings_make_a_gap() {
    let warned = r#"{"status":"success","data":{"resultType":"matrix","result":[]},"warnings":["one store is down"]}"#;
    let vector = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
    let address = server(move |stream| {
        // The first question measures the scrape interval, and wants a vector.
        static ASKED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let first = ASKED.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
        let body = if first { vector } else { warned };
        let _gone =
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    });
    let output = backtest(address);
    assert!(output.status.success(), "{}", stderr(&output));
    let records = json_lines(&stdout(&output));
    assert!(records.iter().any(|r| text(r, "event") == "gap" && text(r, "message").contains("one store is down")));
    assert!(!records.iter().any(|r| text(r, "event") == "isolate"));
}

#[test]
fn the_daemon_lives_through_it_says_so_and_decides_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let sick = server(reply("500 Internal Server Error", "text/plain", "out of memory"));
    let address = free_address();
    let mut command = zoneward();
    command
        .args(["run", "--config", "config/default.yaml", "--audit-directory", folder.path().to_str().unwrap()])
        .env("ZONEWARD_PROMETHEUS__URL", format!("http://{sick}"))
        .env("ZONEWARD_DETECT__CYCLE", "1s")
        .env("ZONEWARD_SERVE__LISTEN", address.to_string())
        .stderr(std::process::Stdio::null());
    let daemon = Process::start(&mut command, address, "/healthz");
    eventually("it says that it is blind", Duration::from_secs(20), || {
        let (status, why) = get(address, "/readyz")?;
        (status == 503 && why.contains("out of memory")).then_some(())
    });
    assert_eq!(daemon.get("/healthz").0, 200, "blind, but alive");
    let (_, metrics) = daemon.get("/metrics");
    assert!(metrics.contains("zoneward_failed_cycles_total"), "{metrics}");
    assert!(metrics.ends_with("# EOF\n"));
    eventually("the gap is on record", Duration::from_secs(20), || {
        let entries = stdout(&run(&["audit", "--directory", folder.path().to_str().unwrap(), "--output", "json"]));
        entries.contains("\"event\":\"gap\"").then_some(())
    });
    assert!(daemon.terminate().success());
    let entries =
        json_lines(&stdout(&run(&["audit", "--directory", folder.path().to_str().unwrap(), "--output", "json"])));
    assert!(!entries.iter().any(|e| text(e, "event") == "isolate"));
    assert_eq!(text(entries.last().unwrap(), "event"), "stopped");
}

#[test]
fn a_journal_that_cannot_be_written_stops_nobody_from_watching_and_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let audit = folder.path().join("audit");
    std::fs::write(&audit, "a file where the folder should be").unwrap();
    let address = free_address();
    let mut command = zoneward();
    command
        .args(["run", "--config", "config/default.yaml", "--audit-directory", audit.to_str().unwrap()])
        .env("ZONEWARD_PROMETHEUS__URL", "http://127.0.0.1:9")
        .env("ZONEWARD_DETECT__CYCLE", "1s")
        .env("ZONEWARD_SERVE__LISTEN", address.to_string())
        .stderr(std::fs::File::create(folder.path().join("log")).unwrap());
    let daemon = Process::start(&mut command, address, "/healthz");
    eventually("it says that nothing can be put on record", Duration::from_secs(20), || {
        let (status, why) = get(address, "/readyz")?;
        (status == 503 && why.contains("nothing is begun since") && why.contains("(audit.directory ")).then_some(())
    });
    assert!(!daemon.get("/metrics").1.contains("\nzoneward_audit_failures_total 0\n"));
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(log.contains("ERROR") && log.contains("nothing is begun"), "{log}");
    std::fs::remove_file(&audit).unwrap();
    let directory = audit.to_str().unwrap();
    eventually("it says what is missing from its journal", Duration::from_secs(20), || {
        let entries = stdout(&run(&["audit", "--from", directory, "--output", "json"]));
        entries.contains("nothing could be put on record").then_some(())
    });
    assert!(daemon.terminate().success());
    assert!(run(&["audit", "verify", "--from", directory]).status.success());
}

#[test]
fn a_journal_has_one_daemon_and_a_second_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let audit = folder.path().to_str().unwrap();
    let command = |address: SocketAddr| {
        let mut command = zoneward();
        command
            .args(["run", "--config", "config/default.yaml", "--audit-directory", audit])
            .env("ZONEWARD_PROMETHEUS__URL", "http://127.0.0.1:9")
            .env("ZONEWARD_SERVE__LISTEN", address.to_string())
            .stderr(std::process::Stdio::piped());
        command
    };
    let address = free_address();
    let first = Process::start(command(address).stderr(std::process::Stdio::null()), address, "/healthz");
    let second = command(free_address()).output().unwrap();
    let said = stderr(&second);
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains("another process writes its journal there") && said.contains(audit), "{said}");
    assert_eq!(first.get("/healthz").0, 200, "the first goes on");
    // What reads takes no lock.
    assert!(run(&["audit", "verify", "--from", audit]).status.success());
    drop(first);
    let third = Process::start(command(address).stderr(std::process::Stdio::null()), address, "/healthz");
    assert_eq!(third.get("/healthz").0, 200, "however it ended, a process holds it no longer");
    drop(third);
    assert!(run(&["audit", "verify", "--from", audit]).status.success());
}
