//! Stand-in: a site that no policy of the demo lets anybody reach.

use http::StatusCode;

use super::site::{self, Reply};

/// Says what must never be read in the demo.
pub(super) fn answer() -> Reply {
    site::text(
        StatusCode::OK,
        "payroll: whoever reads this got past the policy\n",
    )
}
