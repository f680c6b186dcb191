//! The keys and certificates of an agent.

use russh::MethodKind;
use russh::keys::PublicKey;
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;

use super::{Login, Step};

impl Login<'_> {
    /// Tries the agent's keys, or one of them.
    pub(super) async fn agent(&mut self, only: Option<&PublicKey>) -> Step {
        let Ok(mut agent) = AgentClient::connect_env().await else {
            return Ok(false);
        };
        let identities = agent.request_identities().await.unwrap_or_default();
        for identity in identities {
            let held = identity.public_key();
            if only.is_some_and(|only| only.key_data() != held.key_data()) {
                continue;
            }
            if !self.offered(MethodKind::PublicKey) {
                break;
            }
            let hash = self.hash_for(&held.algorithm()).await?;
            let user = self.with.user;
            let signed = match identity {
                AgentIdentity::PublicKey { key, comment } => {
                    self.tried.push(format!("agent's key {comment}"));
                    let handle = &mut self.handle;
                    let signed = handle.authenticate_publickey_with(user, key, hash, &mut agent);
                    signed.await
                }
                AgentIdentity::Certificate {
                    certificate,
                    comment,
                } => {
                    self.tried.push(format!("agent's certificate {comment}"));
                    let handle = &mut self.handle;
                    let signed =
                        handle.authenticate_certificate_with(user, certificate, hash, &mut agent);
                    signed.await
                }
            };
            // An agent that does not sign says nothing about the server.
            if let Ok(answer) = signed
                && self.heard(Ok(answer))?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
