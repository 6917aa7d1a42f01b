//! What the image holds is enough: one executable that is linked to nothing, and the certificates of public authorities.

use std::path::Path;
use std::process::Command;

use crate::support::{Process, free_address, json_lines, prometheus, root, stderr, stdout};

/// As the Dockerfile links it, of what the tests have built already.
fn executable() -> String {
    let output = Command::new(env!("CARGO"))
        .args(["rustc", "--locked", "--message-format=json", "--bench", "static"])
        .args(["--", "-C", "target-feature=+crt-static"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let dockerfile = std::fs::read_to_string(root().join("Dockerfile")).unwrap();
    assert!(dockerfile.contains("-- -C target-feature=+crt-static"));
    let told = json_lines(&stdout(&output));
    let made = told.iter().find(|message| message["target"]["name"] == "static" && message["executable"].is_string());
    made.unwrap()["executable"].as_str().unwrap().to_owned()
}

/// `/zoneward` there. As root by chroot, else in a namespace where one may.
fn within(folder: &Path) -> Command {
    let is_root = stdout(&Command::new("id").arg("-u").output().unwrap()).trim() == "0";
    let mut command = Command::new(if is_root { "chroot" } else { "unshare" });
    if is_root {
        command.arg(folder);
    } else {
        command.args(["--user", "--map-root-user"]).arg(format!("--root={}", folder.display()));
    }
    command.arg("/zoneward").env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command
}

pub fn runs_in_an_empty_root() {
    let (folder, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir_all(path("etc/ssl/certs")).unwrap();
    std::fs::copy(executable(), path("zoneward")).unwrap();
    // The image has these; a container runtime puts devices and the names of hosts into every container. Making a device takes
    // rights: bytes enough for a test do as well.
    std::fs::copy("/etc/ssl/certs/ca-certificates.crt", path("etc/ssl/certs/ca-certificates.crt")).unwrap();
    std::fs::create_dir(path("dev")).unwrap();
    for device in ["dev/random", "dev/urandom"] {
        std::fs::write(path(device), rand::random_iter().take(1 << 16).collect::<Vec<u8>>()).unwrap();
    }
    std::fs::write(path("etc/hosts"), "127.0.0.1 prometheus.test\n").unwrap();
    let prometheus = prometheus(3, data.path(), "scrape_configs: []");
    let url = format!("http://prometheus.test:{}", prometheus.address.port());

    let checked =
        within(folder.path()).args(["check", "--connect"]).env("ZONEWARD_PROMETHEUS__URL", &url).output().unwrap();
    let said = stdout(&checked);
    assert!(
        said.contains("istio_requests_total"),
        "a name is looked up, and Prometheus asked: {said}{}",
        stderr(&checked)
    );
    let address = free_address();
    let mut run = within(folder.path());
    run.args(["run", "--audit-directory", "/audit"]);
    run.env("ZONEWARD_PROMETHEUS__URL", &url).env("ZONEWARD_SERVE__LISTEN", address.to_string());
    let daemon = Process::start(run.stderr(std::process::Stdio::null()), address, "/healthz");
    assert!(daemon.get("/metrics").1.contains("zoneward_judges"));
    assert!(daemon.terminate().success());
    assert_eq!(std::fs::read_dir(path("audit")).unwrap().count(), 1, "its journal");
}
