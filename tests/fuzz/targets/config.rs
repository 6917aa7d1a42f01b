//! The configuration: a file, and variables over it. They are in comments of the file, `#ZONEWARD_PROMETHEUS__URL=http://a`.

use std::collections::BTreeMap;

use zoneward::settings::{Settings, SettingsError, unknown_variables};

use crate::{MIB, file, within};

/// Beside what it holds itself; aliases of YAML may name a thing again and again.
const MOST_BYTES: usize = 64 * MIB;

pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let variables = text.lines().filter_map(|line| line.strip_prefix('#')?.split_once('='));
    let variables: BTreeMap<String, String> = variables.map(|(name, value)| (name.into(), value.into())).collect();
    unknown_variables(&variables).for_each(drop);
    let path = file("config.yaml", data);
    let settings = match within(MOST_BYTES, || Settings::load(Some(&path), variables)) {
        Ok(settings) => settings,
        Err(error) => {
            let said = error.to_string();
            if let SettingsError::Invalid(problems) = error {
                assert!(problems.iter().all(|it| !it.path.is_empty() && !it.problem.is_empty()), "no place: {said}");
            }
            return;
        }
    };
    settings.unwise().iter().for_each(|advice| drop(format!("{advice:?}")));
    let written = serde_json::to_vec(&settings).expect("what is read can be written");
    let again = Settings::load(Some(&file("again.yaml", &written)), BTreeMap::new());
    let again = again.unwrap_or_else(|error| panic!("{error}, in {}", String::from_utf8_lossy(&written)));
    assert!(again == settings, "{again:#?} was {settings:#?}");
    let changes = Settings::default().adopt(settings.clone());
    drop((changes, settings.pipeline()));
}
