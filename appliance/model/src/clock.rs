//! Decisions; written next.
