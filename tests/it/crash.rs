//! The daemon is killed at every write of an isolation, and at every write of a return, on real servers: whoever takes over
//! ends what was begun, and nothing of anybody else is touched.

#![allow(clippy::print_stdout, reason = "which writes it died at is worth reading")]

use std::time::Duration;

use serde_json::{Value, json};

use crate::relay::{Fate, Relay};
use crate::stage::Stage;
use crate::support::{Process, eventually, strip};

const SOON: Duration = Duration::from_secs(30);
/// More than an isolation, or a return, has.
const MOST_WRITES: usize = 60;

/// What the steps change.
const STEPS_WRITE: [&str; 3] = ["/nodes/", "/pods/", "UPDATE"];

const KINDS: [&str; 7] = ["zoneisolations", "nodes", "pods", "services", "endpointslices", "namespaces", "configmaps"];

/// Two replicas at a time, of which one acts.
struct Replicas<'a> {
    stage: &'a Stage,
    relay: &'a Relay,
    started: usize,
    leader: Process,
    follower: (usize, Process),
}

impl<'a> Replicas<'a> {
    fn start(stage: &'a Stage, relay: &'a Relay) -> Self {
        let leader = daemon(stage, relay, 0);
        stage.leads("replica-0");
        let follower = (1, daemon(stage, relay, 1));
        Self { stage, relay, started: 2, leader, follower }
    }

    /// The leader is gone. Its Lease is taken for run out, which some seconds later it would be. Whoever sees it first
    /// leads: the follower, or a new replica, which looks at once.
    fn take_over(&mut self) {
        self.stage.cluster.kubectl(&["delete", "lease", "-n", "zoneward", "zoneward"]);
        let newcomer = (self.started, daemon(self.stage, self.relay, self.started));
        self.started += 1;
        let leads = |nth: usize| self.stage.log(&format!("replica-{nth}")).contains("this replica leads");
        let newcomer_leads = eventually("one leads", SOON, || match (leads(self.follower.0), leads(newcomer.0)) {
            (false, false) => None,
            (_, newcomer_leads) => Some(newcomer_leads),
        });
        let next = if newcomer_leads { newcomer } else { std::mem::replace(&mut self.follower, newcomer) };
        self.leader = next.1;
    }
}

impl Drop for Replicas<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("writes: {:#?}", self.relay.writes());
            println!("{:?}", self.stage.cluster.try_kubectl(&["get", "zoneisolations,leases", "-A", "-o", "yaml"]));
            (0..self.started).for_each(|nth| println!("replica-{nth}: {}", self.stage.log(&format!("replica-{nth}"))));
        }
    }
}

fn daemon(stage: &Stage, relay: &Relay, nth: usize) -> Process {
    let config = stage.config_of("relayed.yaml", relay.name_server);
    stage.daemon_through(&format!("replica-{nth}"), &config, &relay.kubeconfig(stage))
}

/// All that is in the cluster, and in the name server, but for versions, times, and what zoneward keeps of its past.
fn everything(stage: &Stage) -> Value {
    let mut all = KINDS.map(|kind| stage.get(&[kind, "-A"]));
    all.iter_mut().for_each(strip);
    let names = ["api.example.org.", "_zoneward.api.example.org."].map(|name| stage.bind.dig(name, "ANY"));
    json!([all, names])
}

fn apply(stage: &Stage) {
    let expires = Stage::in_future(Duration::from_hours(1));
    stage.cluster.apply(&format!(
        "{{apiVersion: zoneward.io/v1alpha1, kind: ZoneIsolation, metadata: {{name: zone-b}}, \
         spec: {{reason: 'a test', expiresAt: '{expires}', overrides: [stale_data, cooling_down, budget_spent]}}}}"
    ));
}

fn is_isolated(stage: &Stage) -> bool {
    stage.condition("zone-b", "Isolated").is_some_and(|(status, _, _)| status == "True")
}

fn is_gone(stage: &Stage) -> bool {
    stage.isolation("zone-b").is_none()
}

#[test]
fn whatever_write_the_daemon_dies_at_another_replica_ends_what_it_began() {
    let stage = Stage::new();
    // Others' marks, on the same objects.
    stage.cluster.kubectl(&["taint", "node", "zone-b-0", "team=blue:NoSchedule"]);
    stage.cluster.kubectl(&["cordon", "zone-b-1"]);
    stage.pod("theirs-zone-b", "web", "zone-b-0", "{}");
    stage.cluster.kubectl(&["label", "pod", "theirs-zone-b", "istio.io/draining=by-somebody"]);
    let relay = Relay::start(&stage);
    let before = everything(&stage);
    let mut replicas = Replicas::start(&stage, &relay);
    let (mut killed_out, mut killed_back) = (Vec::new(), Vec::new());
    let mut isolated: Option<Value> = None;
    // Steps run side by side: which write is the nth differs from time to time, so one of each kind is asked for.
    let every = (1..MOST_WRITES).map(Moment::Nth).chain(STEPS_WRITE.map(Moment::First));
    let mut outlived = false;
    for moment in every {
        if outlived && matches!(moment, Moment::Nth(_)) {
            continue;
        }
        let killed_before = killed_out.len() + killed_back.len();
        moment.kill(&relay, &replicas);
        apply(&stage);
        if eventually("the zone is out, or its daemon is dead", SOON, || ended(&stage, &mut replicas, is_isolated)) {
            killed_out.push(moment.of(&relay.writes()));
            replicas.take_over();
        }
        eventually("the zone is out", SOON, || is_isolated(&stage).then_some(()));
        assert!(stage.is_out("zone-b"), "killed at {moment:?} of an isolation, {:?}", relay.writes());
        let mut out = everything(&stage);
        forget_the_episode(&mut out);
        assert_eq!(isolated.get_or_insert_with(|| out.clone()), &out, "killed at {moment:?} of an isolation");

        moment.kill(&relay, &replicas);
        stage.cluster.kubectl(&["delete", "zoneisolation", "zone-b", "--wait=false"]);
        if eventually("the zone is back, or its daemon is dead", SOON, || ended(&stage, &mut replicas, is_gone)) {
            killed_back.push(moment.of(&relay.writes()));
            replicas.take_over();
        }
        eventually("the zone is back", SOON, || is_gone(&stage).then_some(()));
        assert_eq!(everything(&stage), before, "killed at {moment:?} of a return, {:?}", relay.writes());
        outlived = killed_out.len() + killed_back.len() == killed_before;
    }
    println!("killed at {} writes of isolations: {killed_out:#?}", killed_out.len());
    println!("killed at {} writes of returns: {killed_back:#?}", killed_back.len());
    for (what, killed) in [("isolation", &killed_out), ("return", &killed_back)] {
        for kind in STEPS_WRITE.into_iter().chain(["/zoneisolations/"]) {
            assert!(
                killed.iter().any(|write| write.contains(kind)),
                "no {kind} among the writes of the {what}: {killed:?}"
            );
        }
    }
}

/// At which write the daemon is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// Counted from 1.
    Nth(usize),
    /// Of that kind.
    First(&'static str),
}

impl Moment {
    fn kill(self, relay: &Relay, replicas: &Replicas<'_>) {
        let fate = Fate::KillAfter(replicas.leader.id());
        let mut seen = 0;
        relay.rule(move |write| {
            let counts = match self {
                Self::Nth(_) => true,
                Self::First(kind) => write.contains(kind),
            };
            seen += usize::from(counts);
            if counts && seen == self.count() { fate } else { Fate::Pass }
        });
    }

    const fn count(self) -> usize {
        match self {
            Self::Nth(nth) => nth,
            Self::First(_) => 1,
        }
    }

    fn of(self, writes: &[String]) -> String {
        let found = match self {
            Self::Nth(nth) => writes.get(nth - 1),
            Self::First(kind) => writes.iter().find(|write| write.contains(kind)),
        };
        found.unwrap().clone()
    }
}

/// Whether the leader was killed, once that is known or what was asked for is done.
fn ended(stage: &Stage, replicas: &mut Replicas<'_>, done: fn(&Stage) -> bool) -> Option<bool> {
    if replicas.leader.has_ended() {
        return Some(true);
    }
    // A write may follow what was asked for.
    done(stage).then(|| {
        std::thread::sleep(Duration::from_millis(500));
        replicas.leader.has_ended()
    })
}

/// What differs from one episode to the next: when it was, and what it is called.
fn forget_the_episode(all: &mut Value) {
    for item in all[0][0]["items"].as_array_mut().unwrap() {
        *item = json!({"steps": item["status"]["steps"], "finalizers": item["metadata"]["finalizers"]});
    }
}
