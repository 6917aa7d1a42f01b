//! A real Kubernetes cluster that has no machines.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::support::{free_address, part};

const ADMIN: &str = "admin";
/// What begins each token, and must be shown nowhere.
pub const TOKEN: &str = "planted-token-of-";

/// A process that ends with the test, and whose log is shown when it fails.
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    pub fn start(command: &mut Command, log: PathBuf) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(&log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        Self { child, log }
    }

    pub fn wait_until(&mut self, ready: impl Fn() -> bool) {
        let patience = Instant::now() + Duration::from_mins(2);
        while !ready() {
            let ended = self.child.try_wait().unwrap();
            if ended.is_some() || Instant::now() > patience {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                panic!("not ready, {ended:?}: {}: {log}", self.log.display());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// Knows nothing of its user's settings, which for these programs would include environment variables.
pub fn isolated(name: &str, home: &Path) -> Command {
    let mut command = Command::new(part(name));
    command.env_clear().env("HOME", home).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.current_dir(home);
    command
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).unwrap();
}

/// An etcd and an API server. Pods need no service account, and nodes get no taints by themselves.
pub struct Cluster {
    // These end in this order.
    controllers: Vec<Daemon>,
    api_server: Option<Daemon>,
    _etcd: Daemon,
    etcd_address: SocketAddr,
    address: SocketAddr,
    authority: String,
    http: reqwest::Client,
    folder: TempDir,
}

/// Lives as long as the process, so that no test has to end it.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap())
}

impl Cluster {
    pub fn start() -> Self {
        Self::start_with_users(&[])
    }

    /// Users beside the admin. They have no rights but those that the test then grants.
    pub fn start_with_users(users: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (address, etcd_address) = (free_address(), free_address());
        let authority = certify(folder.path());

        let mut tokens = format!("{TOKEN}{ADMIN},{ADMIN},{ADMIN},system:masters\n");
        users.iter().for_each(|user| tokens += &format!("{TOKEN}{user},{user},{user}\n"));
        write(folder.path(), "tokens.csv", &tokens);
        for user in users.iter().chain([&ADMIN]) {
            let config = format!(
                "{{apiVersion: v1, kind: Config, current-context: it, \
                 clusters: [{{name: it, cluster: {{server: 'https://{address}', certificate-authority-data: {}}}}}], \
                 users: [{{name: {user}, user: {{token: {TOKEN}{user}}}}}], \
                 contexts: [{{name: it, context: {{cluster: it, user: {user}}}}}]}}\n",
                BASE64.encode(&authority)
            );
            write(folder.path(), &format!("{user}.kubeconfig"), &config);
        }

        let mut etcd = Daemon::start(
            isolated("kube", folder.path())
                .arg("etcd")
                .arg(format!("--listen-client-urls=http://{etcd_address}"))
                .arg(format!("--advertise-client-urls=http://{etcd_address}"))
                .args(["--data-dir=etcd", "--listen-peer-urls=http://127.0.0.1:0", "--unsafe-no-fsync"])
                .args(["--log-level=error"]),
            folder.path().join("etcd.log"),
        );
        etcd.wait_until(|| TcpStream::connect(etcd_address).is_ok());
        let certificate = reqwest::Certificate::from_pem(authority.as_bytes()).unwrap();
        // The API server may be another one by the next call.
        let http = reqwest::Client::builder().tls_certs_only([certificate]).pool_max_idle_per_host(0).build().unwrap();
        let mut cluster =
            Self { controllers: vec![], api_server: None, _etcd: etcd, etcd_address, address, authority, http, folder };
        cluster.start_api_server();
        cluster
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whose certificates are to be trusted, in PEM.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// On the same port and data as before.
    pub fn start_api_server(&mut self) {
        let mut command = self.kube("apiserver");
        command
            .arg(format!("--etcd-servers=http://{}", self.etcd_address))
            .arg(format!("--secure-port={}", self.address.port()))
            .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none"])
            .args(["--tls-cert-file=server.pem", "--tls-private-key-file=server-key.pem"])
            .args(["--service-account-issuer=https://kubernetes.default.svc", "--service-cluster-ip-range=10.0.0.0/24"])
            .args(["--service-account-signing-key-file=accounts-key.pem", "--service-account-key-file=accounts.pem"])
            .args(["--authorization-mode=RBAC", "--token-auth-file=tokens.csv"])
            .arg("--disable-admission-plugins=ServiceAccount,TaintNodesByCondition");
        let mut server = Daemon::start(&mut command, self.folder.path().join("apiserver.log"));
        let ready = ["/readyz", "/api/v1/namespaces/default"];
        server.wait_until(|| {
            TcpStream::connect(self.address).is_ok()
                && ready.iter().all(|path| self.try_kubectl(&["get", "--raw", path]).is_ok())
        });
        self.api_server = Some(server);
    }

    /// At once, as in a crash.
    pub fn stop_api_server(&mut self) {
        self.api_server = None;
    }

    /// Deployments, replica sets and stateful sets get pods, pods get nodes and go with their owners, and services get
    /// endpoint slices. Nobody runs the pods: their status is the test's to write.
    pub fn controllers(&mut self) {
        let parts: [(&str, &[&str]); 2] = [
            (
                "controllers",
                &["--controllers=deployment-controller,replicaset-controller,statefulset-controller,\
                   endpointslice-controller,garbage-collector-controller"],
            ),
            ("scheduler", &[]),
        ];
        for (name, options) in parts {
            let mut command = self.kube(name);
            command
                .arg(format!("--kubeconfig={}", self.kubeconfig().display()))
                .args(["--leader-elect=false", "--secure-port=0"])
                .args(options);
            self.controllers.push(Daemon::start(&mut command, self.folder.path().join(format!("{name}.log"))));
        }
    }

    /// The admin's.
    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig_of(ADMIN)
    }

    pub fn kubeconfig_of(&self, user: &str) -> PathBuf {
        let path = self.folder.path().join(format!("{user}.kubeconfig"));
        assert!(path.exists(), "the cluster was started without {user}");
        path
    }

    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.try_kubectl(arguments).unwrap_or_else(|e| panic!("kubectl {arguments:?}: {e}"))
    }

    /// What it printed, or why it failed. `--kubeconfig` makes it another user's.
    pub fn try_kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        self.kubectl_with(arguments, "")
    }

    /// What stands at a path of the API, or why it can't be read. Of many looks kubectl would start as many times.
    pub fn read(&self, path: &str) -> Result<Value, String> {
        let (http, url) = (self.http.clone(), format!("https://{}{path}", self.address));
        let (sender, answered) = mpsc::channel();
        runtime().spawn(async move {
            let answer = async {
                let mut answer = http.get(&url).bearer_auth(format!("{TOKEN}{ADMIN}")).send().await?;
                // A kind that has just been defined.
                for _ in 0..50 {
                    if answer.status() != reqwest::StatusCode::TOO_MANY_REQUESTS {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    answer = http.get(&url).bearer_auth(format!("{TOKEN}{ADMIN}")).send().await?;
                }
                answer.error_for_status()?.json().await
            };
            sender.send(answer.await.map_err(|error: reqwest::Error| error.to_string()))
        });
        answered.recv().unwrap()
    }

    pub fn apply(&self, yaml: &str) {
        self.try_apply(yaml).unwrap_or_else(|e| panic!("{e}: {yaml}"));
    }

    /// A ready node of a zone.
    pub fn node(&self, name: &str, zone: &str) {
        self.apply(&format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: {name}, labels: {{topology.kubernetes.io/zone: {zone}}}}}, \
             status: {{conditions: [{{type: Ready, status: 'True', reason: Test, message: test}}], \
             allocatable: {{cpu: '8', memory: 16Gi, pods: '100'}}}}}}"
        ));
    }

    pub fn try_apply(&self, yaml: &str) -> Result<String, String> {
        self.kubectl_with(&["apply", "-f", "-"], yaml)
    }

    fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut command = self.kube("kubectl");
        command.env("KUBECONFIG", self.kubeconfig()).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // It may fail before it has read anything.
        let _unread = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    fn kube(&self, name: &str) -> Command {
        let mut command = isolated("kube", self.folder.path());
        command.arg(name);
        command
    }
}

/// Keys and certificates of the API server and of service accounts. Returns the certificate of their authority.
fn certify(folder: &Path) -> String {
    let mut authority = CertificateParams::new(vec![]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let certificate = authority.self_signed(&authority_key).unwrap();

    let mut server = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().unwrap();
    let signed = server.signed_by(&key, &Issuer::new(authority, authority_key)).unwrap();
    write(folder, "server.pem", &signed.pem());
    write(folder, "server-key.pem", &key.serialize_pem());

    let accounts = KeyPair::generate().unwrap();
    write(folder, "accounts-key.pem", &accounts.serialize_pem());
    write(folder, "accounts.pem", &accounts.public_key_pem());
    certificate.pem()
}
