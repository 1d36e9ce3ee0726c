//! The off-site copy: encrypt, push, verify and restore, against S3-compatible storage or a directory.
//!
//! Owns the layout of a target (DESIGN.md, "Off-site layout"), its ledger, and the OpenPGP framing.
//! Usable without an appliance: nothing here knows of systemd, D-Bus or the configuration file.
//! Reads repositories through `strongroom-borg`; never writes to one. Deletes no object but what a probe itself wrote,
//! and, where the owner wants it, what no state needs that is kept ([`retire`]).

pub mod digest;
mod durable;
pub mod layout;
pub mod ledger;
pub mod manifest;
pub mod openpgp;
pub mod oracle;
pub mod probe;
pub mod progress;
pub mod push;
pub mod restore;
pub mod retire;
pub mod s3;
mod store;
pub mod sums;
pub mod target;
pub mod trust;
pub mod verify;

pub use openpgp::{Encryption, Gpg, Keyring, OpenError, Opener};
pub use progress::{OnProgress, Phase, Progress};
pub use push::{Limits, PushError, PushReport, PushRequest, Tuning, push};
pub use restore::{
    ArchiveRequest, Consent, RestoreError, RestoreReport, RestoreRequest, SegmentReport, Signed, restore,
    restore_segment,
};
pub use target::{AtService, BadTarget, Credentials, Place, Target};
pub use trust::{Trust, TrustError};
pub use verify::{VerifyError, VerifyReport, VerifyRequest, verify};
