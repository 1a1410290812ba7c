//! Forwards one exchange to a node, over kept connections.
