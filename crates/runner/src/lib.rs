//! The towpath binary, and the library to build one with connectors of your own.
