//! Simulators of foreign systems and the conformance suite every connector passes.
