//! A Prometheus behind TLS and passwords, and what a request carries.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::{Process, free_address, part, stderr, stdout, zoneward};

const PASSWORD: &str = "open sesame";
/// Of the password, by bcrypt.
const PASSWORD_HASH: &str = "$2b$04$0A76kyiURqmw4AuZJS.bMOCnOBNNfZHA24pL6476tCgOpKsc/XlL.";

fn check(folder: &Path, prometheus: &str) -> Output {
    let config = folder.join("config.yaml");
    std::fs::write(&config, format!("prometheus: {prometheus}")).unwrap();
    zoneward().args(["check", "--connect", "--config", config.to_str().unwrap()]).output().unwrap()
}

/// A real Prometheus with a certificate of an authority of its own.
pub fn secured(folder: &Path) -> Process {
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("ca.pem"), certified.cert.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), certified.signing_key.serialize_pem()).unwrap();
    let web = format!(
        "tls_server_config: {{cert_file: ca.pem, key_file: key.pem}}\nbasic_auth_users: {{reader: '{PASSWORD_HASH}'}}\n"
    );
    std::fs::write(folder.join("web.yml"), web).unwrap();
    std::fs::write(folder.join("prometheus.yml"), "").unwrap();
    let address = free_address();
    let mut command = Command::new(part("prometheus-3"));
    command
        .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
        .arg(format!("--web.config.file={}", folder.join("web.yml").display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("tsdb").display()))
        .arg(format!("--web.listen-address={address}"))
        .arg("--log.level=error");
    Process::start_speaking_tls(&mut command, address)
}

#[test]
fn a_private_authority_and_a_password_open_the_door_and_nothing_less_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let server = secured(folder.path());
    std::fs::write(folder.path().join("password"), format!("{PASSWORD}\n")).unwrap();
    std::fs::write(folder.path().join("wrong"), "open barley").unwrap();
    let url = format!("url: 'https://{}'", server.address);
    let ca = format!("ca_file: {}", path("ca.pem"));
    let auth = |file: &str| format!("basic_auth: {{username: reader, password_file: {}}}", path(file));

    let opened = check(folder.path(), &format!("{{{url}, {ca}, {}}}", auth("password")));
    assert!(stdout(&opened).contains("answers"), "{}{}", stdout(&opened), stderr(&opened));

    let wrong = check(folder.path(), &format!("{{{url}, {ca}, {}}}", auth("wrong")));
    assert!(stdout(&wrong).contains("HTTP 401"), "{}", stdout(&wrong));
    assert!(!(stdout(&wrong) + &stderr(&wrong)).contains("barley"), "a secret is never printed");

    let unknown = check(folder.path(), &format!("{{{url}, {}}}", auth("password")));
    assert!(stdout(&unknown).contains("certificate"), "{}", stdout(&unknown));
    assert_eq!(unknown.status.code(), Some(1));
}

#[test]
fn a_token_and_extra_headers_go_with_each_query() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let heard = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = vec![0; 16 * 1024];
        let length = stream.read(&mut request).unwrap();
        let _gone = write!(stream, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
        String::from_utf8_lossy(&request[..length]).into_owned()
    });
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name).display().to_string()
    };
    let settings = format!(
        "{{url: 'http://{address}', bearer_token_file: {}, headers: [{{name: X-Scope-OrgID, value: team-a}}, {{name: X-Key, \
         value_file: {}}}]}}",
        file("token", "t0ken\n"),
        file("key", "k3y\n")
    );
    let output = check(folder.path(), &settings);
    let request = heard.join().unwrap().to_lowercase();
    for header in ["authorization: bearer t0ken\r\n", "x-scope-orgid: team-a\r\n", "x-key: k3y\r\n"] {
        assert!(request.contains(header), "{header}: {request}");
    }
    let said = stdout(&output) + &stderr(&output);
    assert!(said.contains("HTTP 403") && !said.contains("t0ken") && !said.contains("k3y"), "{said}");
}
