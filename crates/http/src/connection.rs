//! One dedicated connection to a server, for sign-ins that belong to a connection.

/// A connection in use that can be used again once its answer has been read to the end.
pub(crate) struct Keep(Box<dyn FnOnce() + Send + Sync>);

impl Keep {
    pub fn new(give_back: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self(Box::new(give_back))
    }
    pub fn give_back(self) {
        (self.0)();
    }
}
