//! Clients' sessions: each is a `borg serve` in a unit of its own, as the client's own account, confined to its repository.
//!
//! sshd runs `strongroom-serve NAME` ([`serve`]), which hands its connection to the broker ([`broker`]), the only part that
//! has power; the broker waits until there is memory for it ([`room`]), builds the unit ([`unit`]) from the name alone, and has
//! systemd start it. In the unit, `strongroom-session` ([`confine`]) puts up the last wall and becomes Borg, or watches over it
//! ([`bounds`]). [`takeover`] gives the repositories to their accounts ([`accounts`]). The unit is the only record of a session
//! that runs ([`list`]); of those that are over, the last are
//! remembered ([`history`]).

pub mod accounts;
pub mod bounds;
pub mod broker;
pub mod confine;
pub mod history;
pub mod list;
pub mod room;
pub mod serve;
pub mod takeover;
pub mod unit;
pub mod wire;
