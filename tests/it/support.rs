//! Starts the binary and real servers, and reads what they say.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn zoneward() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zoneward"));
    command.current_dir(root()).env_remove("RUST_LOG");
    command
}

pub fn run(arguments: &[&str]) -> Output {
    zoneward().args(arguments).output().unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// The decisions among records: what a live run and a backtest must agree on.
pub fn decisions(records: &[Value]) -> Vec<(String, String, String)> {
    let decides = |r: &&Value| ["suspect", "isolate", "blocked", "clear", "restore"].contains(&text(r, "event"));
    records
        .iter()
        .filter(decides)
        .map(|r| (text(r, "time").to_owned(), text(r, "event").to_owned(), text(r, "zone").to_owned()))
        .collect()
}

/// All that is on record but what it cost to read.
pub fn whatever_the_source(mut records: Vec<Value>) -> Vec<Value> {
    let summary = records.last_mut().unwrap();
    assert_eq!(text(summary, "event"), "summary");
    summary.as_object_mut().unwrap().remove("message");
    for cost in ["queries", "response_bytes", "seconds"] {
        summary["figures"].as_object_mut().unwrap().remove(cost);
    }
    records
}

/// The executables that `tests/parts.sh` provides. A missing one fails the test.
pub fn part(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let output = Command::new(root().join("tests/parts.sh")).output().unwrap();
        assert!(output.status.success(), "tests/parts.sh: {}", stderr(&output));
        PathBuf::from(stdout(&output).trim())
    });
    folder.join(name)
}

pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A process that ends with the test.
pub struct Process {
    child: Child,
    pub address: SocketAddr,
}

impl Process {
    pub fn start(command: &mut Command, address: SocketAddr, ready_path: &str) -> Self {
        Self::start_when(command, address, || get(address, ready_path).is_some_and(|(status, _)| status == 200))
    }

    /// Ready once it takes connections.
    pub fn start_speaking_tls(command: &mut Command, address: SocketAddr) -> Self {
        Self::start_when(command, address, || TcpStream::connect(address).is_ok())
    }

    fn start_when(command: &mut Command, address: SocketAddr, ready: impl Fn() -> bool) -> Self {
        let child = command.stdin(Stdio::null()).spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let mut process = Self { child, address };
        let patience = Instant::now() + Duration::from_mins(1);
        while !ready() {
            assert!(Instant::now() < patience, "{command:?} is not ready");
            if let Some(status) = process.child.try_wait().unwrap() {
                panic!("{command:?} ended early: {status}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        process
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn get(&self, path: &str) -> (u16, String) {
        get(self.address, path).unwrap_or_else(|| panic!("{}{path} does not answer", self.url()))
    }

    /// Asks it to stop, and waits until it has.
    pub fn terminate(mut self) -> std::process::ExitStatus {
        let killed = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(killed.success());
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

pub fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// A real Prometheus. `data` may hold backfilled blocks.
pub fn prometheus(major: u32, data: &Path, scrape_configs: &str) -> Process {
    prometheus_looking_back(major, data, scrape_configs, "20s")
}

/// Instant queries see samples up to so old, which stands in for the staleness markers that backfilled data lacks.
pub fn prometheus_looking_back(major: u32, data: &Path, scrape_configs: &str, lookback: &str) -> Process {
    prometheus_at(free_address(), major, data, scrape_configs, lookback)
}

/// The same again after it ended, if its address and data are.
pub fn prometheus_at(address: SocketAddr, major: u32, data: &Path, scrape_configs: &str, lookback: &str) -> Process {
    let config = data.join("prometheus.yml");
    std::fs::write(&config, format!("global: {{scrape_interval: 1s}}\n{scrape_configs}\n")).unwrap();
    let mut command = Command::new(part(&format!("prometheus-{major}")));
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", data.join("tsdb").display()))
        .arg(format!("--web.listen-address={address}"))
        .args(["--storage.tsdb.retention.time=50y", "--log.level=error"])
        .arg(format!("--query.lookback-delta={lookback}"));
    Process::start(&mut command, address, "/-/ready")
}

/// A real one.
pub fn alertmanager(folder: &Path) -> Process {
    let (config, data) = (folder.join("alertmanager.yml"), folder.join("data"));
    std::fs::write(&config, "{route: {receiver: none}, receivers: [{name: none}]}").unwrap();
    // It sends nothing, so it needs no words.
    ["default.tmpl", "email.tmpl"].iter().for_each(|name| std::fs::write(folder.join(name), "").unwrap());
    let address = free_address();
    let mut command = Command::new(part("alertmanager"));
    command.current_dir(folder);
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.path={}", data.display()))
        .arg(format!("--web.listen-address={address}"))
        .args(["--cluster.listen-address=", "--log.level=error"]);
    Process::start(&mut command, address, "/-/ready")
}

/// Waits until something is so.
pub fn eventually<T>(what: &str, patience: Duration, mut check: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + patience;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < until, "never came true within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// An object's content, without what every write and every moment changes.
pub fn strip(value: &mut Value) {
    const CHANGING: [&str; 5] =
        ["resourceVersion", "managedFields", "lastHeartbeatTime", "lastTransitionTime", "observedGeneration"];
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !CHANGING.contains(&key.as_str()));
            map.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
