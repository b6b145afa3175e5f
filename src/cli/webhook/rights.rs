//! Whether the API key may read and write webhooks.

use crate::ids::ApplicationId;
use crate::stack::KeyInfo;

/// What writing a webhook needs, with the words of the Console
/// (`TheThingsNetwork/lorawan-stack pkg/applicationserver/io/web/grpc_webhooks.go`).
const NEEDED: [(&str, &str); 3] = [
    ("RIGHT_APPLICATION_SETTINGS_BASIC", "Edit basic application settings"),
    ("RIGHT_APPLICATION_TRAFFIC_READ", "Read application traffic (uplink and downlink)"),
    ("RIGHT_APPLICATION_TRAFFIC_DOWN_WRITE", "Write downlink application traffic"),
];

/// Says what the key lacks, and what to do.
pub(super) fn check(key: &KeyInfo, application: &ApplicationId) -> Result<(), String> {
    if key.rights.is_empty() {
        let whose = match key.application.as_deref() {
            Some(own) if own != application.as_str() => {
                format!("belongs to application `{own}`, and STACK_APPLICATION_ID is `{application}`")
            }
            _ => format!("has no rights for application `{application}`"),
        };
        return Err(format!(
            "the API key {whose}; create a key in the Console under application `{application}` → API keys, and give it as STACK_API_KEY"
        ));
    }
    let missing: Vec<_> = NEEDED
        .iter()
        .filter(|(right, _)| !key.has(right))
        .map(|(right, words)| format!("{right} (\"{words}\")"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "the API key lacks {}; add it in the Console under application `{application}` → API keys (it takes up to two minutes), \
         or give this command another key: the bridge's own does not need RIGHT_APPLICATION_SETTINGS_BASIC",
        missing.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(application: Option<&str>, rights: &[&str]) -> KeyInfo {
        let rights = rights.iter().map(|right| (*right).to_owned()).collect();
        KeyInfo { application: application.map(str::to_owned), rights }
    }

    fn told(key: &KeyInfo) -> Result<(), String> {
        check(key, &ApplicationId::parse("cold-store").expect("valid"))
    }

    #[test]
    fn a_key_with_the_rights_passes_and_any_other_is_told_why() {
        let all = NEEDED.map(|(right, _)| right);
        assert_eq!(told(&key(Some("cold-store"), &all)), Ok(()));
        assert_eq!(told(&key(Some("cold-store"), &["RIGHT_APPLICATION_ALL"])), Ok(()));
        for lacking in all {
            let rights: Vec<_> = all.into_iter().filter(|right| *right != lacking).collect();
            let why = told(&key(Some("cold-store"), &rights)).expect_err(lacking);
            assert!(why.starts_with(&format!("the API key lacks {lacking} (")), "{why}");
            let others = rights.iter().filter(|right| **right != "RIGHT_APPLICATION_SETTINGS_BASIC");
            assert!(others.clone().all(|right| !why.contains(right)), "{why}");
        }
        for owner in [None, Some("barn")] {
            assert_eq!(told(&key(owner, &all)), Ok(()), "what counts is what it may do here");
            assert_eq!(told(&key(owner, &["RIGHT_ALL"])), Ok(()), "an administrator's");
            let why = told(&key(owner, &all[1..])).expect_err("one right too few");
            assert!(why.starts_with("the API key lacks RIGHT_APPLICATION_SETTINGS_BASIC"), "{why}");
        }
        let why = told(&key(Some("barn"), &[])).expect_err("another application");
        assert!(why.contains("belongs to application `barn`") && why.contains("`cold-store`"), "{why}");
        for owner in [None, Some("cold-store")] {
            let why = told(&key(owner, &[])).expect_err("no rights");
            assert!(why.contains("has no rights for application `cold-store`"), "{why}");
        }
    }
}
