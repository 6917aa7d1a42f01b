//! Which answers count as failures.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Server-side failures. 4xx and the gRPC statuses that blame the caller (1, 3, 5, 7, 16) are not among them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FailureClasses {
    /// Codes such as `503`, classes such as `5xx`, and `0` for no answer.
    pub response_codes: Vec<CodeClass>,
    /// Statuses under HTTP 200.
    pub grpc_statuses: Vec<u8>,
    /// Envoy's response flags that make it the caller's own doing.
    pub ignored_flags: Vec<String>,
}

impl Default for FailureClasses {
    fn default() -> Self {
        Self {
            response_codes: vec![CodeClass("5xx".to_owned()), CodeClass("0".to_owned())],
            grpc_statuses: vec![2, 4, 13, 14, 15],
            ignored_flags: vec!["DC".to_owned()],
        }
    }
}

impl FailureClasses {
    pub fn is_failure(&self, response_code: &str, grpc_status: &str, response_flags: &str) -> bool {
        if response_flags.split(',').any(|flag| self.ignored_flags.iter().any(|ignored| ignored == flag)) {
            return false;
        }
        let by_code = self.response_codes.iter().any(|class| class.contains(response_code));
        let by_grpc = || grpc_status.parse().is_ok_and(|status: u8| self.grpc_statuses.contains(&status));
        by_code || (response_code == "200" && by_grpc())
    }
}

/// One response code, or a hundred of them (`5xx`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "CodeText", into = "String")]
pub struct CodeClass(String);

impl CodeClass {
    /// Whether HTTP has it, for what a server or a caller did wrong; or it is no answer.
    pub fn may_be_a_failure(&self) -> bool {
        self.0 == "0" || self.0.starts_with(['4', '5'])
    }

    fn contains(&self, response_code: &str) -> bool {
        match self.0.strip_suffix("xx") {
            Some(class) => response_code.len() == 3 && response_code.starts_with(class),
            None => self.0 == response_code,
        }
    }
}

/// YAML reads `503` as a number.
#[derive(Deserialize, schemars::JsonSchema)]
#[serde(untagged)]
enum CodeText {
    Number(u16),
    Text(String),
}

impl TryFrom<CodeText> for CodeClass {
    type Error = String;

    fn try_from(text: CodeText) -> Result<Self, String> {
        let code = match text {
            CodeText::Number(number) => number.to_string(),
            CodeText::Text(text) => text,
        };
        let digits = code.strip_suffix("xx").unwrap_or(&code);
        let class = code.ends_with("xx") && digits.len() == 1;
        let single = code == digits && (code == "0" || code.len() == 3);
        if (class || single) && digits.bytes().all(|b| b.is_ascii_digit()) {
            Ok(Self(code))
        } else {
            Err(format!("`{code}` is not a response code: write one such as 503, a class such as 5xx, or 0"))
        }
    }
}

impl fmt::Display for CodeClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<CodeClass> for String {
    fn from(class: CodeClass) -> Self {
        class.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_servers_failures_count() {
        let classes = FailureClasses::default();
        let cases = [
            ("500", "", "-", true),
            ("503", "", "UF,URX", true),
            ("0", "", "-", true),
            ("0", "", "DC", false),
            ("404", "", "-", false),
            ("429", "", "-", false),
            ("200", "0", "-", false),
            ("200", "14", "-", true),
            ("200", "5", "-", false),
            ("200", "", "-", false),
        ];
        for (code, grpc, flags, failure) in cases {
            assert_eq!(classes.is_failure(code, grpc, flags), failure, "{code} grpc {grpc} flags {flags}");
        }
    }
}
