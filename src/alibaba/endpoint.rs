//! Where a service is called.

use reqwest::Url;

use crate::domain::shown_address;

/// A host, with its scheme; without a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub(super) url: String,
    /// As the header `host` has it.
    pub(super) host: String,
}

impl Endpoint {
    /// From a host, or a URL of it. Only on this machine may it be without TLS: calls carry tokens.
    pub fn parse(text: &str) -> Result<Self, String> {
        let shown = shown_address(text);
        let hint = || format!("`{shown}` is not a host: write one such as nlb-vpc.cn-hangzhou.aliyuncs.com");
        let full = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let url = Url::parse(&full).map_err(|_| hint())?;
        let name = url.host_str().filter(|_| url.path() == "/" && url.query().is_none()).ok_or_else(hint)?;
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(hint());
        }
        let on_this_machine = ["127.0.0.1", "[::1]", "localhost"].contains(&name);
        match url.scheme() {
            "https" => {}
            "http" if on_this_machine => {}
            _ => {
                return Err(format!("`{shown}` is without TLS: calls carry tokens, so write https, or the host alone"));
            }
        }
        let host = url.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"));
        Ok(Self { url: format!("{}://{host}", url.scheme()), host })
    }

    /// A host of the cloud's own.
    pub fn of_host(host: impl Into<String>) -> Self {
        let host = host.into();
        Self { url: format!("https://{host}"), host }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_enough_and_a_path_is_too_much() {
        let host = |text| Endpoint::parse(text).map(|endpoint| (endpoint.url, endpoint.host));
        let own = |url: &str, host: &str| Ok((url.to_owned(), host.to_owned()));
        assert_eq!(host("a.example.org"), own("https://a.example.org", "a.example.org"));
        assert_eq!(host("https://a.example.org:443/"), own("https://a.example.org", "a.example.org"));
        assert_eq!(host("http://127.0.0.1:80"), own("http://127.0.0.1", "127.0.0.1"));
        assert_eq!(host("http://[::1]:8080"), own("http://[::1]:8080", "[::1]:8080"));
        for wrong in ["", "a b", "https://a/b", "https://u:p@a", "https://a/?b=c", "http://a.example.org", "ftp://a"] {
            assert!(host(wrong).is_err(), "{wrong}");
        }
    }
}
