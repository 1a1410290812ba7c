//! Opens a micro-VPN tunnel for a permit.
