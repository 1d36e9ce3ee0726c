//! The daemon and its roles.
