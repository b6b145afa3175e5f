//! What became of the events of a batch, counted.

use std::collections::BTreeMap;
use std::fmt;

/// Why an event needs nothing done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ignored {
    /// Not a lifecycle or twin change of IoT Hub: telemetry, or forged.
    NotFromHub,
    /// About a module.
    Module,
    /// About an operation that this version does not know.
    OtherOperation,
    /// Names no device.
    NoDevice,
    /// A device whose id has not our prefix.
    NotOurs,
    /// A device that The Things Stack cannot have.
    NotAStackId,
    /// Our own reported patch came back.
    EchoOfReported,
    /// Our own tags came back.
    EchoOfTags,
    /// An identity that we created ourselves.
    EchoOfIdentity,
    /// Neither `tags.lorawan` nor a downlink.
    NothingForUs,
    /// The device belongs to the bridge of another application.
    OtherApplication,
    /// Created without `tags.lorawan`: waits for them.
    WaitsForTags,
    /// The device is gone by now.
    Gone,
    /// Saved again, with the same values.
    Unchanged,
    /// Its downlink waits for the device's join.
    WaitsForJoin,
    /// No downlink is desired.
    NothingDesired,
    /// `SYNC_DELETE=false`.
    DeletionIsOff,
    /// Deleted, and made anew by someone.
    MadeAnew,
    /// Done in an earlier delivery of the batch.
    DoneBefore,
}

impl Ignored {
    fn key(self) -> &'static str {
        match self {
            Self::NotFromHub => "ignored.not_from_hub",
            Self::Module => "ignored.module",
            Self::OtherOperation => "ignored.other_operation",
            Self::NoDevice => "ignored.no_device",
            Self::NotOurs => "ignored.not_ours",
            Self::NotAStackId => "ignored.not_a_stack_id",
            Self::EchoOfReported => "ignored.echo_reported",
            Self::EchoOfTags => "ignored.echo_tags",
            Self::EchoOfIdentity => "ignored.echo_identity",
            Self::NothingForUs => "ignored.nothing_for_us",
            Self::OtherApplication => "ignored.other_application",
            Self::WaitsForTags => "ignored.waits_for_tags",
            Self::Gone => "ignored.gone",
            Self::Unchanged => "ignored.unchanged",
            Self::WaitsForJoin => "ignored.waits_for_join",
            Self::NothingDesired => "ignored.nothing_desired",
            Self::DeletionIsOff => "ignored.deletion_is_off",
            Self::MadeAnew => "ignored.made_anew",
            Self::DoneBefore => DONE_BEFORE,
        }
    }
}

/// One thing that was done about an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// Registered in The Things Stack.
    Registered,
    /// Deleted in The Things Stack.
    Deleted,
    /// A downlink was queued.
    Queued,
    /// A downlink had been queued by an earlier, interrupted try.
    FoundQueued,
    /// A downlink waits for the join.
    Waiting,
    /// The marker of an earlier downlink was removed.
    Forgotten,
    /// Posted to the package.
    Submitted,
    /// Written to the dead letters.
    DeadLettered,
    /// Nothing.
    Ignored(Ignored),
}

impl Done {
    fn key(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Deleted => "deleted",
            Self::Queued => "downlinks",
            Self::FoundQueued => "downlinks_found_queued",
            Self::Waiting => "waiting",
            Self::Forgotten => "forgotten",
            Self::Submitted => "submitted",
            Self::DeadLettered => "dead_lettered",
            Self::Ignored(reason) => reason.key(),
        }
    }

    /// Whether it took an answer of The Things Stack.
    pub(super) fn proves_stack(self) -> bool {
        matches!(self, Self::Registered | Self::Deleted | Self::Queued | Self::Waiting | Self::Submitted)
    }

    /// Whether it took an answer of IoT Hub.
    pub(super) fn proves_hub(self) -> bool {
        let by_reading = matches!(
            self,
            Self::Ignored(Ignored::Unchanged | Ignored::WaitsForJoin | Ignored::NothingDesired | Ignored::Gone)
        );
        let by_writing =
            matches!(self, Self::Registered | Self::Queued | Self::FoundQueued | Self::Waiting | Self::Forgotten);
        by_reading || by_writing || self == Self::Deleted
    }
}

/// The key of events that failed and come again.
pub(super) const FAILED: &str = "failed";
/// The beginning of the keys of ignored events.
const IGNORED: &str = "ignored.";
/// The key of events that an earlier delivery of the batch was done with, and counted.
const DONE_BEFORE: &str = "done_before";

/// The counts of a batch; prints as one line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    pub(super) fn count(&mut self, done: Done) {
        self.add(done.key(), 1);
    }

    pub(super) fn add(&mut self, key: &'static str, number: usize) {
        *self.0.entry(key).or_default() += u64::try_from(number).unwrap_or(u64::MAX);
    }

    pub(super) fn of(&self, done: Done) -> u64 {
        self.number(done.key())
    }

    pub(super) fn failed(&self) -> u64 {
        self.number(FAILED)
    }

    /// All that were ignored in this delivery, whatever the reason.
    pub(super) fn ignored(&self) -> u64 {
        self.0.iter().filter(|(key, _)| key.starts_with(IGNORED)).map(|(_, number)| number).sum()
    }

    fn number(&self, key: &str) -> u64 {
        self.0.get(key).copied().unwrap_or_default()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, number)) in self.0.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{key}={number}")?;
        }
        Ok(())
    }
}
