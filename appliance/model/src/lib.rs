#![no_std]
//! What is true: configuration, status, conditions, decisions.
