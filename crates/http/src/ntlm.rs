//! Signing in with NTLM, bare or inside Negotiate.
use http::{HeaderMap, Method};
use towpath_core::{Context, Error, Result};
use url::Url;

use crate::{client::Answer, options::HttpOptions, request::Body, wire::Limits};

pub(crate) struct SignIn;
impl SignIn {
    pub fn new(_: &HttpOptions) -> Result<Self> {
        Ok(Self)
    }
    pub async fn exchange(
        &self,
        _: &Context,
        _: &Method,
        _: &Url,
        _: &HeaderMap,
        _: Body,
        _: Limits,
    ) -> Result<Answer> {
        Err(Error::unsupported("ntlm"))
    }
}
