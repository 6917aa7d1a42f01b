//! Addresses of servers, as the configuration names them.

/// A text as a part of an address: all but what RFC 3986 leaves unreserved is encoded.
pub fn percent_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Without what may be secret in it: a name and a password, a query. What is none is shown as far as it can be.
pub fn shown_address(address: &str) -> String {
    let address = address.split(['?', '#']).next().unwrap_or_default();
    match (address.split_once("://"), address.rsplit_once('@')) {
        (Some((scheme, rest)), Some((_, host))) if rest.contains('@') => format!("{scheme}://…@{host}"),
        (None, Some((_, host))) => format!("…@{host}"),
        _ => address.to_owned(),
    }
}

/// What is illegal about an address of HTTP. Says nothing of what it must not hold.
pub fn problem_of_address(address: &str) -> Option<String> {
    let rest = ["http://", "https://"].iter().find_map(|scheme| address.strip_prefix(scheme));
    let authority = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    match authority {
        Some(authority) if authority.contains('@') => {
            Some("holds a name or a password, which would be logged: give it by a file".to_owned())
        }
        Some(authority) if names_a_host(authority) && !address.contains(char::is_whitespace) => None,
        _ => Some(format!("`{}` is not an http:// or https:// address", shown_address(address))),
    }
}

fn names_a_host(authority: &str) -> bool {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (authority, "0"),
    };
    !host.is_empty() && port.parse::<u16>().is_ok()
}

/// The same of one that paths are appended to.
pub fn problem_of_base_address(address: &str) -> Option<String> {
    let has_more = || address.contains(['?', '#']);
    let more = || "has a query, and paths are appended to it: leave it out, and give secrets by a file".to_owned();
    problem_of_address(address).or_else(|| has_more().then(more))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_secret_is_neither_taken_nor_shown() {
        for good in ["http://prometheus:9090", "https://[::1]:9090/select/0/prometheus"] {
            assert_eq!((problem_of_base_address(good), shown_address(good)), (None, good.to_owned()));
        }
        let hook = "https://hooks.example.org/a?token=planted";
        assert_eq!((problem_of_address(hook), shown_address(hook)), (None, "https://hooks.example.org/a".to_owned()));
        let bad = [
            hook,
            "http://me:planted@host",
            "https://me:plan/planted@host",
            "htps://me:planted@host",
            "me:planted@host",
            "host?planted",
            "http://",
            "https://a b",
            "",
        ];
        for bad in bad {
            let problem = problem_of_base_address(bad).unwrap_or_else(|| panic!("{bad} is taken"));
            assert!(!problem.contains("planted"), "{problem}");
            assert!(!shown_address(bad).contains("planted"), "{}", shown_address(bad));
        }
    }
}
