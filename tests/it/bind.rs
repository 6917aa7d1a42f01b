//! A BIND of our own, on a port and in a folder of its own. Its zone is dynamic; the key may change `api`'s addresses
//! and the marker beside it, and nothing else.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::part;

pub const SECRET: &str = "c2VjcmV0IG9mIHRoZSB0ZXN0cyBvZiB6b25ld2FyZCE=";
pub const KEY_NAME: &str = "zoneward-key";

pub struct Bind {
    child: Child,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

impl Bind {
    /// `records` are lines of the zone file, such as `api 60 IN A 192.0.2.1`.
    pub fn start(zone: &str, records: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let file = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let head =
            format!("@ 3600 IN SOA ns.{zone} admin.{zone} 1 3600 600 86400 60\n@ 3600 IN NS ns\nns 60 IN A 127.0.0.1");
        file("zone", &format!("$ORIGIN {zone}\n{head}\n{}\n", records.join("\n")));
        file("key", &format!("{SECRET}\n"));
        let path = folder.path().display();
        file(
            "named.conf",
            &format!(
                r#"key "{KEY_NAME}" {{ algorithm hmac-sha256; secret "{SECRET}"; }};
options {{ directory "{path}"; pid-file "{path}/pid"; session-keyfile "{path}/session";
  listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
  recursion no; notify no; dnssec-validation no; managed-keys-directory "{path}"; }};
controls {{ }};
zone "{zone}" {{ type primary; file "zone"; update-policy {{
  grant {KEY_NAME} name api.{zone} A AAAA; grant {KEY_NAME} name _zoneward.api.{zone} TXT; }}; }};
"#,
                port = address.port()
            ),
        );
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new(part("named"))
            .args(["-g", "-n", "1", "-c"])
            .arg(folder.path().join("named.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let bind = Self { child, address, folder };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(address).is_err() || bind.dig(zone, "SOA").is_empty() {
            assert!(Instant::now() < deadline, "named does not start:\n{}", bind.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        bind
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The secret in base64.
    pub fn key_file(&self) -> PathBuf {
        self.folder().join("key")
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The answer's lines as `dig +noall +answer` has them, blanks made one, sorted.
    pub fn dig(&self, name: &str, kind: &str) -> Vec<String> {
        let port = self.address.port().to_string();
        let output = Command::new(part("dig"))
            .args(["@127.0.0.1", "-p", &port, "+norecurse", "+noall", "+answer", "+time=2", "+tries=2", name, kind])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut lines: Vec<String> = text
            .lines()
            .filter(|line| !line.starts_with(';') && !line.is_empty())
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        lines.sort();
        lines
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder().join("log")).unwrap_or_default()
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
