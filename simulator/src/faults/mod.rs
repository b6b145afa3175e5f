//! Faults on demand: rules that strike single exchanges at a named stage.
//!
//! | module | idea |
//! |---|---|
//! | `rule` | where, what, how often; and which rules make sense |
//! | `strike` | what a struck exchange has left |
//!
//! One [`Faults`] is shared by all parts of the world. Each asks it at its stages; the first rule, in the order in which
//! they were added, that strikes decides. Rules hit one exchange and leave the rest alone. A service that is away as a
//! whole, open sockets included, is another thing: `IotHub::set_fault`, `AmqpServer::set_fault`, `Stack::set_fault`.

mod rule;
mod strike;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

pub use rule::{Action, MAX_DELAY_MS, Rule, RuleError, Stage};
pub use strike::{Fate, Strike, play};

/// The most rules at a time: every exchange looks at all of them.
pub const MAX_RULES: usize = 100;

/// A rule at work.
#[derive(Debug)]
struct Active {
    id: u64,
    rule: Rule,
    hits: u64,
    chance: StdRng,
}

impl Active {
    fn new(id: u64, rule: Rule) -> Self {
        let chance = rule.seed.map_or_else(StdRng::from_os_rng, StdRng::seed_from_u64);
        Self { id, rule, hits: 0, chance }
    }

    /// Whether the rule strikes this exchange; if so, it is counted.
    fn strikes(&mut self, stage: Stage, device: Option<&str>) -> bool {
        let is_meant = self.rule.device.as_deref().is_none_or(|meant| device == Some(meant));
        if self.rule.stage != stage || !is_meant {
            return false;
        }
        let strikes = match (self.rule.times, self.rule.share) {
            (Some(times), _) => self.hits < times,
            (None, Some(share)) => self.chance.random_bool(share),
            (None, None) => true,
        };
        self.hits += u64::from(strikes);
        strikes
    }
}

#[derive(Debug, Default)]
struct Rules {
    last_id: u64,
    active: Vec<Active>,
}

/// The rules of a world; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    rules: Arc<Mutex<Rules>>,
}

impl Faults {
    fn rules(&self) -> MutexGuard<'_, Rules> {
        // No call leaves the list half written.
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a rule behind the others; returns its id.
    ///
    /// # Errors
    /// If the rule makes no sense, or there are [`MAX_RULES`].
    pub fn add(&self, rule: Rule) -> Result<u64, RuleError> {
        rule.check()?;
        let mut rules = self.rules();
        if rules.active.len() >= MAX_RULES {
            return Err(RuleError::TooMany);
        }
        rules.last_id += 1;
        let id = rules.last_id;
        rules.active.push(Active::new(id, rule));
        Ok(id)
    }

    /// The rules in their order: id, rule, how often it has struck. A rule whose `times` are over stays in the list.
    #[must_use]
    pub fn list(&self) -> Vec<(u64, Rule, u64)> {
        self.rules().active.iter().map(|active| (active.id, active.rule.clone(), active.hits)).collect()
    }

    /// Removes a rule. Returns whether it was there.
    pub fn remove(&self, id: u64) -> bool {
        let mut rules = self.rules();
        let before = rules.active.len();
        rules.active.retain(|active| active.id != id);
        rules.active.len() < before
    }

    /// Removes all rules.
    pub fn clear(&self) {
        self.rules().active.clear();
    }

    /// What happens to an exchange that has come to a stage; `None`: nothing. The device is given where it is known.
    #[must_use]
    pub fn at(&self, stage: Stage, device: Option<&str>) -> Option<Strike> {
        let strike = self.rules().active.iter_mut().find_map(|active| {
            active.strikes(stage, device).then(|| Strike::new(active.rule.action, active.rule.delay_ms))
        })?;
        tracing::debug!(?stage, device, ?strike, "a fault strikes");
        Some(strike)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn close(stage: Stage) -> Rule {
        Rule::new(stage, Action::Close)
    }

    fn strikes(faults: &Faults, calls: usize) -> Vec<bool> {
        (0..calls).map(|_| faults.at(Stage::Puback, Some("d1")).is_some()).collect()
    }

    #[test]
    fn the_first_rule_that_strikes_decides() {
        let faults = Faults::default();
        faults.add(Rule { times: Some(1), ..close(Stage::Puback) }).expect("a sound rule");
        faults.add(Rule { delay_ms: Some(5), ..Rule::new(Stage::Puback, Action::Delay) }).expect("a sound rule");
        assert_eq!(faults.at(Stage::Rest, None), None);
        assert_eq!(faults.at(Stage::Puback, None), Some(Strike::Close));
        assert_eq!(faults.at(Stage::Puback, None), Some(Strike::Delay(Duration::from_millis(5))));
        let hits: Vec<_> = faults.list().into_iter().map(|(id, _, hits)| (id, hits)).collect();
        assert_eq!(hits, [(1, 1), (2, 1)]);
    }

    #[test]
    fn a_rule_for_a_device_leaves_the_others_alone() {
        let faults = Faults::default();
        faults.add(Rule { device: Some("d1".into()), ..close(Stage::Puback) }).expect("a sound rule");
        for (device, struck) in [(Some("d1"), true), (Some("d10"), false), (None, false)] {
            assert_eq!(faults.at(Stage::Puback, device).is_some(), struck, "{device:?}");
        }
    }

    #[test]
    fn rules_go_one_by_one_or_all_and_ids_are_not_used_again() {
        let faults = Faults::default();
        let first = faults.add(close(Stage::Puback)).expect("a sound rule");
        assert!(faults.remove(first) && !faults.remove(first));
        let second = faults.add(close(Stage::Puback)).expect("a sound rule");
        assert!(second > first);
        faults.clear();
        assert_eq!((faults.list(), faults.at(Stage::Puback, None)), (Vec::new(), None));
    }

    #[test]
    fn the_list_has_a_bound() {
        let faults = Faults::default();
        for _ in 0..MAX_RULES {
            faults.add(close(Stage::Puback)).expect("a sound rule");
        }
        assert_eq!(faults.add(close(Stage::Puback)), Err(RuleError::TooMany));
    }

    #[test]
    fn n_times_are_n_times_however_many_ask_at_once() {
        let faults = Faults::default();
        faults.add(Rule { times: Some(1000), ..close(Stage::Puback) }).expect("a sound rule");
        let struck: usize = std::thread::scope(|scope| {
            let ask = || scope.spawn(|| strikes(&faults, 500).into_iter().filter(|struck| *struck).count());
            let askers: Vec<_> = (0..8).map(|_| ask()).collect();
            askers.into_iter().map(|asker| asker.join().expect("no asker panics")).sum()
        });
        assert_eq!((struck, faults.list()[0].2), (1000, 1000));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_share_of_many_calls_lies_near_the_share(share in 0.01_f64..=1.0, seed: u64) {
            const CALLS: u32 = 4000;
            let faults = Faults::default();
            faults.add(Rule { share: Some(share), seed: Some(seed), ..close(Stage::Puback) }).expect("a sound rule");
            let struck = strikes(&faults, CALLS as usize);
            let hits = u32::try_from(struck.iter().filter(|struck| **struck).count()).expect("it is small");
            // Six standard deviations: less than one case in a hundred million lies outside.
            let bound = 6.0 * (f64::from(CALLS) * share * (1.0 - share)).sqrt();
            prop_assert!((f64::from(hits) - f64::from(CALLS) * share).abs() <= bound, "{hits} of {CALLS}");

            let again = Faults::default();
            again.add(Rule { share: Some(share), seed: Some(seed), ..close(Stage::Puback) }).expect("a sound rule");
            prop_assert_eq!(strikes(&again, CALLS as usize), struck);
        }
    }
}
