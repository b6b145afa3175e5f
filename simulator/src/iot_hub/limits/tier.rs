//! Tiers: what a hub of a size allows (`MicrosoftDocs/azure-docs articles/iot-hub/iot-hub-devguide-quotas-throttling.md`;
//! daily quotas: azure.microsoft.com/pricing/details/iot-hub).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// The size of a hub. The Basic sizes are left out: they differ by what they lack, not by their rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sku {
    /// Free.
    F1,
    /// Standard 1.
    S1,
    /// Standard 2.
    S2,
    /// Standard 3.
    S3,
}

/// Why there is no such tier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TierError {
    /// No size has this name.
    #[error("there is no size `{0}`; take F1, S1, S2 or S3")]
    Sku(String),
    /// A hub of this size cannot have so many.
    #[error("a hub of size {sku:?} has 1 to {} units, not {units}", sku.max_units())]
    Units {
        /// The size.
        sku: Sku,
        /// The units.
        units: u32,
    },
}

impl FromStr for Sku {
    type Err = TierError;

    fn from_str(text: &str) -> Result<Self, TierError> {
        Ok(match text.to_ascii_uppercase().as_str() {
            "F1" => Self::F1,
            "S1" => Self::S1,
            "S2" => Self::S2,
            "S3" => Self::S3,
            _ => return Err(TierError::Sku(text.to_owned())),
        })
    }
}

impl Sku {
    /// The most units of one hub (`MicrosoftDocs/azure-docs articles/iot-hub/iot-hub-scaling.md`).
    #[must_use]
    pub const fn max_units(self) -> u32 {
        match self {
            Self::F1 => 1,
            Self::S1 | Self::S2 => 200,
            Self::S3 => 10,
        }
    }
}

/// What is limited by a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// CONNECT packets.
    Connect,
    /// Device-to-cloud messages.
    D2cSend,
    /// Twins read, by devices and services.
    TwinRead,
    /// Twins written, by devices and services.
    TwinUpdate,
    /// Identities read, listed or written.
    Identity,
    /// Queries.
    Query,
    /// Cloud-to-device messages taken from services.
    C2dSend,
    /// Direct methods, in bytes.
    Method,
}

impl Operation {
    /// Every operation, in the order of the enum.
    pub(super) const ALL: [Self; 8] = [
        Self::Connect,
        Self::D2cSend,
        Self::TwinRead,
        Self::TwinUpdate,
        Self::Identity,
        Self::Query,
        Self::C2dSend,
        Self::Method,
    ];

    /// Whether a used-up day stops it; the others are free of charge.
    pub(super) const fn is_billed(self) -> bool {
        !matches!(self, Self::Connect | Self::Identity)
    }

    /// As errors call it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Connect => "device connections",
            Self::D2cSend => "device-to-cloud sends",
            Self::TwinRead => "twin reads",
            Self::TwinUpdate => "twin updates",
            Self::Identity => "identity registry operations",
            Self::Query => "queries",
            Self::C2dSend => "cloud-to-device sends",
            Self::Method => "direct methods",
        }
    }
}

/// So much in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) amount: u64,
    pub(super) window: Duration,
}

/// A size and its units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    sku: Sku,
    units: u32,
}

impl Tier {
    /// Whether it is the tier that costs nothing.
    #[must_use]
    pub const fn is_free(self) -> bool {
        matches!(self.sku, Sku::F1)
    }

    /// A hub of so many units.
    ///
    /// # Errors
    /// If a hub of this size cannot have so many.
    pub const fn new(sku: Sku, units: u32) -> Result<Self, TierError> {
        if units == 0 || units > sku.max_units() {
            return Err(TierError::Units { sku, units });
        }
        Ok(Self { sku, units })
    }

    pub(super) fn rate(self, operation: Operation) -> Rate {
        let units = u64::from(self.units);
        // At least `floor`, and more where the units bring more.
        let per_second = |floor: u64, per_unit: u64| Rate { amount: floor.max(per_unit * units), window: SECOND };
        let per_minute = |per_unit: u64| Rate { amount: per_unit * units, window: MINUTE };
        let small = matches!(self.sku, Sku::F1 | Sku::S1);
        let large = self.sku == Sku::S3;
        match operation {
            Operation::Connect | Operation::D2cSend if small => per_second(100, 12),
            Operation::Connect | Operation::D2cSend => per_second(0, if large { 6000 } else { 120 }),
            Operation::TwinRead if small => per_second(100, 0),
            Operation::TwinRead if large => per_second(0, 500),
            Operation::TwinRead => per_second(100, 10),
            Operation::TwinUpdate if small => per_second(50, 0),
            Operation::TwinUpdate if large => per_second(0, 250),
            Operation::TwinUpdate => per_second(50, 5),
            Operation::Identity | Operation::C2dSend => per_minute(if large { 5000 } else { 100 }),
            Operation::Query => per_minute(if large { 1000 } else { 20 }),
            Operation::Method if small => per_second(0, 160 * 1024),
            Operation::Method if large => per_second(0, 24 * 1024 * 1024),
            Operation::Method => per_second(0, 480 * 1024),
        }
    }

    /// Billed messages a day.
    pub(super) fn quota(self) -> u64 {
        let per_unit = match self.sku {
            Sku::F1 => 8_000,
            Sku::S1 => 400_000,
            Sku::S2 => 6_000_000,
            Sku::S3 => 300_000_000,
        };
        per_unit * u64::from(self.units)
    }

    /// The bytes of one billed message.
    pub(super) const fn block_bytes(self) -> u64 {
        match self.sku {
            Sku::F1 => 512,
            _ => super::meter::BLOCK_BYTES,
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} × {:?}", self.units, self.sku)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tier(sku: Sku, units: u32) -> Tier {
        Tier::new(sku, units).expect("there is such a tier")
    }

    #[test]
    fn rates_are_those_of_the_documents() {
        use Operation::{C2dSend, Connect, D2cSend, Identity, Method, Query, TwinRead, TwinUpdate};
        for (sku, units, operation, amount, window) in [
            (Sku::F1, 1, Connect, 100, SECOND),
            (Sku::S1, 8, D2cSend, 100, SECOND),
            (Sku::S1, 9, D2cSend, 108, SECOND),
            (Sku::S2, 2, Connect, 240, SECOND),
            (Sku::S3, 2, D2cSend, 12_000, SECOND),
            (Sku::S1, 1, TwinUpdate, 50, SECOND),
            (Sku::S1, 200, TwinUpdate, 50, SECOND),
            (Sku::S2, 10, TwinUpdate, 50, SECOND),
            (Sku::S2, 11, TwinUpdate, 55, SECOND),
            (Sku::S3, 1, TwinUpdate, 250, SECOND),
            (Sku::S1, 200, TwinRead, 100, SECOND),
            (Sku::S2, 11, TwinRead, 110, SECOND),
            (Sku::S3, 3, TwinRead, 1500, SECOND),
            (Sku::F1, 1, Identity, 100, MINUTE),
            (Sku::S2, 2, Identity, 200, MINUTE),
            (Sku::S3, 1, C2dSend, 5000, MINUTE),
            (Sku::S1, 3, Query, 60, MINUTE),
            (Sku::S3, 1, Query, 1000, MINUTE),
            (Sku::S2, 2, Method, 960 * 1024, SECOND),
        ] {
            assert_eq!(tier(sku, units).rate(operation), Rate { amount, window }, "{sku:?} {units} {operation:?}");
        }
    }

    #[test]
    fn quotas_and_blocks_are_those_of_the_price_list() {
        for (sku, units, quota, block) in [
            (Sku::F1, 1, 8_000, 512),
            (Sku::S1, 2, 800_000, 4096),
            (Sku::S2, 1, 6_000_000, 4096),
            (Sku::S3, 10, 3_000_000_000, 4096),
        ] {
            let tier = tier(sku, units);
            assert_eq!((tier.quota(), tier.block_bytes()), (quota, block), "{tier}");
        }
    }

    #[test]
    fn sizes_and_units_that_no_hub_has_are_refused() {
        assert_eq!("s2".parse(), Ok(Sku::S2));
        for text in ["", "S4", "B1", "S1 "] {
            assert_eq!(text.parse::<Sku>(), Err(TierError::Sku(text.into())));
        }
        for (sku, units) in [(Sku::F1, 2), (Sku::S1, 0), (Sku::S1, 201), (Sku::S3, 11)] {
            assert_eq!(Tier::new(sku, units), Err(TierError::Units { sku, units }));
        }
    }

    #[test]
    fn the_operations_are_listed_in_their_order() {
        for (position, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, position);
        }
    }
}
