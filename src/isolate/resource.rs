//! The two custom resources: `ZoneIsolation`, an episode, and `Zone`, which outlives episodes and leaders.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A zone out of rotation; named after its zone, so that the API server itself allows one a zone.
#[derive(CustomResource, KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "zoneward.io",
    version = "v1alpha1",
    kind = "ZoneIsolation",
    plural = "zoneisolations",
    shortname = "zi",
    status = "ZoneIsolationStatus",
    doc = "A zone out of rotation, until spec.expiresAt at the latest. Its name is the zone's.",
    validation = Rule::new("self.metadata.name.size() <= 63").message("a zone's name has at most 63 characters"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Effective", type_ = "string", json_path = ".status.conditions[?(@.type=='Effective')].status"),
    printcolumn(name = "Origin", type_ = "string", json_path = ".spec.origin"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".spec.expiresAt"),
    printcolumn(name = "Why", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ZoneIsolationSpec {
    /// Who asked for it.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("who asked for it does not change"))]
    pub origin: SpecOrigin,
    /// Why, for people and the audit journal.
    #[schemars(length(min = 1, max = 2048))]
    pub reason: String,
    /// What the detector saw, strongest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub evidence: Vec<String>,
    /// When it ends by itself, RFC 3339. There is no isolation without an end.
    #[schemars(extend("format" = "date-time"))]
    pub expires_at: String,
    /// How much of its usual traffic the zone may have, in percent.
    #[serde(default)]
    #[schemars(range(max = 99))]
    pub share_percent: u8,
    /// The steps to take, by their keys in the configuration, such as taint; none named is all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub steps: Vec<String>,
    /// Guardrails that need not pass, such as `cooling_down`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub overrides: Vec<String>,
    /// Whether it may act: false until a person approves, where zoneward only recommends.
    #[serde(default = "yes")]
    #[x_kube(validation = Rule::new("self || !oldSelf").message("an approval is not taken back: delete the ZoneIsolation"))]
    pub approved: bool,
}

const fn yes() -> bool {
    true
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SpecOrigin {
    Detector,
    #[default]
    Operator,
    Drill,
}

/// How far it has come.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ZoneIsolationStatus {
    /// The generation of the spec that this episode is of. Once it has ended, only a new one acts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admitted_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolated_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returning_since: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_at: Option<String>,
    /// The kind of guardrail that holds it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_by: Option<String>,
    /// The ledger, one entry a step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub steps: Vec<StepStatus>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<EffectStatus>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<RecoveryStatus>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<Condition>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepStatus {
    pub name: String,
    /// Pending, Captured, Applied, Confirmed, Undone or Stuck.
    pub state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_percent: Option<u8>,
    /// What undo restores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<std::collections::BTreeMap<String, String>>,
    /// Failures in a row.
    #[serde(default)]
    pub failures: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// Requests per second that the zone's servers answered, in thousandths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EffectStatus {
    pub before_milli_requests_per_second: i64,
    pub after_milli_requests_per_second: i64,
    pub measured_at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown_after_seconds: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub residual: Vec<ResidualStatus>,
}

/// How far the zone is on its way back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryStatus {
    /// Out, Refilling, Trial or Ended.
    pub stage: String,
    /// In a trial, of the usual traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_percent: Option<u8>,
    pub since: String,
    pub why: String,
    /// How often it got worse again on its way.
    #[serde(default)]
    pub relapses: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResidualStatus {
    pub service: String,
    pub milli_requests_per_second: i64,
    pub why: String,
}

/// As `metav1.Condition`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    #[serde(rename = "type")]
    pub type_: String,
    pub status: String,
    pub reason: String,
    pub message: String,
    pub last_transition_time: String,
}

/// What outlives an episode: the zone's past, and an operator's hold.
#[derive(CustomResource, KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "zoneward.io",
    version = "v1alpha1",
    kind = "Zone",
    plural = "zones",
    status = "ZoneStatus",
    doc = "An availability zone: the newest verdict on it, its past isolations, and an operator's hold.",
    printcolumn = r#"{"name":"Verdict","type":"string","jsonPath":".status.verdict"}"#,
    printcolumn = r#"{"name":"Since","type":"date","jsonPath":".status.verdictSince"}"#,
    printcolumn = r#"{"name":"Hold","type":"string","jsonPath":".spec.hold"}"#,
    printcolumn = r#"{"name":"Given back by hand","type":"string","jsonPath":".status.operatorHold.since"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ZoneSpec {
    /// Why this zone is never to be isolated automatically, if so; for as long as it stands here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub hold: Option<String>,
    /// When a person looked at the zone's past isolations, RFC 3339: those before are on no budget any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub acknowledged_at: Option<String>,
}

#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ZoneStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub verdict_since: Option<String>,
    /// An isolation was ended by hand: none is begun automatically until the zone is healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_hold: Option<HoldStatus>,
    /// Past isolations, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".to_string()]))]
    pub episodes: Vec<Episode>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HoldStatus {
    pub since: String,
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Episode {
    pub id: String,
    pub origin: SpecOrigin,
    pub reason: String,
    pub requested_at: String,
    pub admitted_at: String,
    pub restored_at: String,
}
