//! The platform slow, down and refusing.

use std::sync::atomic::{AtomicUsize, Ordering};

use azure_core::http::{RawResponse, StatusCode, headers::Headers};
use tokio::time::{Instant, sleep};

use super::*;
use crate::failure::Class;

const SCOPE: &str = "https://iothubs.azure.net/.default";

/// A platform whose answers are told beforehand; the last one stays.
#[derive(Debug)]
struct Platform {
    asked: AtomicUsize,
    /// Delay of the answer, and the seconds that the token has left or the status of a refusal.
    answers: Vec<(Duration, Result<i64, u16>)>,
}

impl Platform {
    fn new(answers: &[(u64, Result<i64, u16>)]) -> Arc<Self> {
        let answers = answers.iter().map(|(delay, answer)| (Duration::from_millis(*delay), *answer)).collect();
        Arc::new(Self { asked: AtomicUsize::new(0), answers })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

/// A platform that never answers.
#[derive(Debug)]
pub(super) struct Silent;

#[async_trait::async_trait]
impl TokenCredential for Silent {
    async fn get_token(&self, _: &[&str], _: Option<TokenRequestOptions<'_>>) -> azure_core::Result<AccessToken> {
        std::future::pending().await
    }
}

fn refusal(status: u16) -> azure_core::Error {
    let status = StatusCode::from(status);
    let raw_response = Some(Box::new(RawResponse::from_bytes(status, Headers::new(), "")));
    let inner =
        azure_core::Error::new(ErrorKind::HttpResponse { error_code: None, raw_response, status }, "not assigned");
    azure_core::Error::with_error(ErrorKind::Credential, inner, "failed\nTo troubleshoot, visit https://aka.ms/x")
}

#[async_trait::async_trait]
impl TokenCredential for Platform {
    async fn get_token(&self, scopes: &[&str], _: Option<TokenRequestOptions<'_>>) -> azure_core::Result<AccessToken> {
        assert_eq!(scopes, [SCOPE]);
        let turn = self.asked.fetch_add(1, Ordering::Relaxed);
        let (delay, answer) = self.answers[turn.min(self.answers.len() - 1)];
        sleep(delay).await;
        let left = answer.map_err(refusal)?;
        Ok(AccessToken::new(format!("token-{turn}"), OffsetDateTime::now_utc() + time::Duration::seconds(left)))
    }
}

fn identity(platform: &Arc<Platform>) -> ManagedIdentity {
    let platform = Arc::clone(platform);
    ManagedIdentity::with_source(Box::new(move || Ok(Arc::clone(&platform) as Arc<dyn TokenCredential>)), SCOPE)
}

fn text(token: Result<AccessToken, IdentityError>) -> String {
    token.expect("a token").token.secret().to_owned()
}

/// Lets the tasks that can run do so.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_token_is_fetched_at_start_and_kept() {
    let platform = Platform::new(&[(0, Ok(3600))]);
    let identity = identity(&platform);
    settle().await;
    assert_eq!(platform.asked(), 1, "before anyone needs it");
    for _ in 0..3 {
        assert_eq!(text(identity.token().await), "token-0");
        sleep(Duration::from_secs(600)).await;
    }
    assert_eq!(platform.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_near_its_end_serves_until_the_next_is_there_and_nobody_has_to_ask_for_that() {
    let platform = Platform::new(&[(0, Ok(600)), (8000, Ok(3600))]);
    let identity = identity(&platform);
    settle().await;
    sleep(LONGEST_PAUSE).await;
    assert_eq!(platform.asked(), 2);
    let began = Instant::now();
    assert_eq!(text(identity.token().await), "token-0");
    assert_eq!(began.elapsed(), Duration::ZERO, "nobody waits");
    sleep(Duration::from_secs(9)).await;
    assert_eq!(text(identity.token().await), "token-1");
    assert_eq!(platform.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_platform_that_is_down_leaves_a_good_token_in_use_and_is_not_stormed() {
    let platform = Platform::new(&[(0, Ok(600)), (0, Err(500))]);
    let identity = identity(&platform);
    settle().await;
    sleep(LONGEST_PAUSE).await;
    for _ in 0..100 {
        assert_eq!(text(identity.token().await), "token-0");
    }
    assert_eq!(platform.asked(), 2);
    sleep(Duration::from_secs(3600)).await;
    assert!(platform.asked() < 3600 / 30 + 10, "{}", platform.asked());
}

#[tokio::test(start_paused = true)]
async fn a_silent_platform_holds_nobody_longer_than_a_webhook_can_wait_and_a_late_answer_serves_the_next() {
    let platform = Platform::new(&[(5000, Ok(3600))]);
    let identity = identity(&platform);
    let began = Instant::now();
    let error = identity.token().await.expect_err("silence");
    assert_eq!((began.elapsed(), error.class()), (PATIENCE, Class::Retry), "{error}");
    let is_set = std::env::var_os("IDENTITY_ENDPOINT").is_some();
    assert_eq!(error.to_string().contains("IDENTITY_ENDPOINT is not set"), !is_set, "{error}");
    let began = Instant::now();
    identity.token().await.expect_err("known to be silent");
    assert_eq!(began.elapsed(), Duration::ZERO);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(text(identity.token().await), "token-0");
    assert_eq!(platform.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_platform_that_never_answers_is_asked_again() {
    let platform = Platform::new(&[(3_600_000, Ok(3600)), (0, Ok(3600))]);
    let identity = identity(&platform);
    sleep(PATIENCE + FETCH_LIMIT + FIRST_PAUSE * 2).await;
    assert_eq!(text(identity.token().await), "token-1");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_has_ended_is_not_given_out() {
    let platform = Platform::new(&[(0, Ok(20)), (2000, Ok(3600))]);
    let identity = identity(&platform);
    settle().await;
    let error = identity.token().await.expect_err("it ends too soon");
    assert_eq!(error.class(), Class::Retry, "{error}");
    sleep(LONGEST_PAUSE + Duration::from_secs(3)).await;
    assert_eq!(text(identity.token().await), "token-1");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_at_once_and_names_the_remedy() {
    for (status, class) in [(400, Class::Denied), (403, Class::Denied), (429, Class::Retry), (500, Class::Retry)] {
        let identity = identity(&Platform::new(&[(0, Err(status))]));
        let began = Instant::now();
        let error = identity.token().await.expect_err("refused");
        assert_eq!((began.elapsed(), error.class()), (Duration::ZERO, class), "{error}");
        let text = error.to_string();
        assert!(text.contains("not assigned") && !text.contains("troubleshoot"), "{text}");
        assert_eq!(class == Class::Denied, text.contains("assign the identity to the app"), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_asks_the_platform_once_the_identity_is_dropped() {
    let platform = Platform::new(&[(0, Err(500))]);
    let identity = identity(&platform);
    settle().await;
    drop(identity);
    let asked = platform.asked();
    sleep(Duration::from_secs(600)).await;
    assert_eq!(platform.asked(), asked);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_given_for_its_own_scope_only_and_never_shown() {
    let identity = identity(&Platform::new(&[(0, Ok(3600))]));
    identity.get_token(&["https://eventhubs.azure.net/.default"], None).await.expect_err("another service");
    let token = identity.get_token(&[SCOPE], None).await.expect("a token");
    assert!(!format!("{identity:?} {token:?}").contains("token-0"));
}

#[tokio::test(start_paused = true)]
async fn the_client_of_event_hubs_hears_a_later_end_each_time_even_if_the_platform_keeps_its_token() {
    /// The client asks this long before the end, or so much earlier.
    const ASKS_BEFORE: time::Duration = time::Duration::seconds(6 * 60 + 5);
    let platform = Platform::new(&[(0, Ok(6 * 60))]);
    let identity = identity(&platform);
    let mut before = OffsetDateTime::now_utc() + time::Duration::minutes(6);
    for _ in 0..3 {
        let token = identity.get_token(&[SCOPE], None).await.expect("a token");
        assert!(token.expires_on > before && left(&token) > ASKS_BEFORE, "{token:?}");
        assert_eq!(token.token.secret(), "token-0");
        before = token.expires_on;
    }
    let fresh = identity_of_an_hour().get_token(&[SCOPE], None).await.expect("a token");
    assert!(left(&fresh) > time::Duration::minutes(59) && left(&fresh) <= time::Duration::hours(1), "{fresh:?}");
}

fn identity_of_an_hour() -> ManagedIdentity {
    identity(&Platform::new(&[(0, Ok(3600))]))
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_panics_is_told_and_followed_by_another() {
    #[derive(Debug)]
    struct Broken;
    #[async_trait::async_trait]
    impl TokenCredential for Broken {
        async fn get_token(&self, _: &[&str], _: Option<TokenRequestOptions<'_>>) -> azure_core::Result<AccessToken> {
            panic!("a scripted panic")
        }
    }
    let (turn, sound) = (AtomicUsize::new(0), Platform::new(&[(0, Ok(3600))]));
    let source = move || -> azure_core::Result<Arc<dyn TokenCredential>> {
        let is_first = turn.fetch_add(1, Ordering::Relaxed) == 0;
        Ok(if is_first { Arc::new(Broken) } else { Arc::clone(&sound) as Arc<dyn TokenCredential> })
    };
    let identity = ManagedIdentity::with_source(Box::new(source), SCOPE);
    let error = identity.token().await.expect_err("a panic");
    assert_eq!(error.class(), Class::Retry, "{error}");
    sleep(FIRST_PAUSE * 2).await;
    assert_eq!(text(identity.token().await), "token-0");
}

#[tokio::test(start_paused = true)]
async fn a_platform_whose_tokens_have_little_left_is_not_asked_on_each_call() {
    let platform = Platform::new(&[(0, Ok(20))]);
    let identity = identity(&platform);
    for _ in 0..20 {
        identity.token().await.expect_err("it ends too soon");
    }
    assert_eq!(platform.asked(), 1, "all within one pause");
}
