//! Every scenario on the development broker, and tests that need no cluster or a broken one.

mod admin_access;
mod barriers;
mod brokers;
mod certificates;
mod compression;
mod cors;
mod denied;
mod early_answers;
mod framing;
mod groups;
mod held_up;
mod hostile;
mod http2;
mod impatient;
mod leaving;
mod limits;
mod listening;
mod machine;
mod malformed;
mod output;
#[cfg(feature = "planted")]
mod panics;
mod pressure;
mod refused_starts;
mod schemas;
mod signals;
mod soak;
mod tls;
mod tls_matrix;
mod two_clusters;

/// Every scenario of `scenarios/` on the development broker.
mod dev {
    crate::scenarios::on_ground!(crate::ground::development);
}

/// Every scenario on the development broker behaving like Redpanda: older versions, no topic ids.
mod redpanda {
    crate::scenarios::on_ground!(crate::ground::redpanda);
}
