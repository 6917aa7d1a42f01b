//! Where one answer would be too large: several that are smaller, each of a part of the services.
//!
//! The parts are told apart by how a service's name ends, so that they need no list of names, and a service that is new is in
//! one of them, too.

/// What names are made of.
const LETTERS: &str = "e1tr2nsi3cdy4apo5lm6ghb7kf8uv9wxqzj0-";

/// The services whose name has, before some ending, one of some letters; or anything else, or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shard {
    letters: String,
    but: bool,
    ending: String,
}

impl Default for Shard {
    /// All of them.
    fn default() -> Self {
        Self { letters: String::new(), but: true, ending: String::new() }
    }
}

impl Shard {
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// As a regular expression, which is anchored.
    pub fn pattern(&self) -> String {
        let Self { letters, but, ending } = self;
        match (but, letters.is_empty()) {
            (true, true) => format!(".*{ending}"),
            (true, false) => format!("(.*[^{letters}])?{ending}"),
            (false, _) => format!(".*[{letters}]{ending}"),
        }
    }

    /// Two halves. Names that no service of Kubernetes has are not told apart.
    pub fn split(&self) -> Option<[Self; 2]> {
        let Self { letters, but, ending } = self;
        let part = |letters: &str, but| Self { letters: letters.to_owned(), but, ending: ending.clone() };
        if *but {
            let left: String = LETTERS.chars().filter(|letter| !letters.contains(*letter)).collect();
            if left.is_empty() {
                return None;
            }
            // The hyphen stays last, where it stands for itself.
            let half = &left[..left.len().div_ceil(2)];
            return Some([part(half, false), part(&format!("{letters}{half}"), true)]);
        }
        if let [_] = letters.as_bytes() {
            return Self { ending: format!("{letters}{ending}"), ..Self::default() }.split();
        }
        let (one, other) = letters.split_at(letters.len() / 2);
        Some([part(one, false), part(other, false)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_is_in_one_shard_whatever_is_split() {
        let names =
            ["", "e", "-", "payments", "web-1", "web-e", "service-00017", "Ünlaut", "a.b", "api_v2", "ee", "checkout-"];
        let mut shards = vec![Shard::default()];
        assert!(shards[0].is_all());
        for round in 0..40 {
            let shard = shards.remove(round * 7 % shards.len());
            match shard.split() {
                Some(halves) => shards.extend(halves),
                None => shards.push(shard),
            }
            for name in names {
                let holds = |shard: &&Shard| {
                    let anchored = format!("^(?s:{})$", shard.pattern());
                    regex::Regex::new(&anchored).unwrap().is_match(name)
                };
                let of_name: Vec<_> = shards.iter().filter(holds).collect();
                assert_eq!(of_name.len(), 1, "`{name}` after {round} rounds: {of_name:?}");
            }
        }
    }
}
