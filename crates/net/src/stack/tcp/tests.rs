//! Flows against segments, without a tap.
