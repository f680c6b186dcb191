//! What a server asks, in as many rounds as it likes.

use russh::MethodKind;
use russh::client::KeyboardInteractiveAuthResponse as Interactive;

use super::{Login, SecretRequest, Step};

/// Rounds of questions that a server may ask.
const QUESTION_ROUNDS: usize = 8;

impl Login<'_> {
    /// Answers them.
    pub(super) async fn questions(&mut self) -> Step {
        if !self.offered(MethodKind::KeyboardInteractive) || self.with.options.secrets.is_none() {
            return Ok(false);
        }
        self.tried.push("keyboard-interactive".to_owned());
        let user = self.with.user;
        let started = self
            .handle
            .authenticate_keyboard_interactive_start(user, None);
        let mut answer = started.await.map_err(|e| self.gone(e))?;
        for _ in 0..QUESTION_ROUNDS {
            let prompts = match answer {
                Interactive::Success => return Ok(true),
                Interactive::Failure {
                    remaining_methods,
                    partial_success,
                } => {
                    self.refused(remaining_methods, partial_success);
                    return Ok(false);
                }
                Interactive::InfoRequest { prompts, .. } => prompts,
            };
            let mut responses = Vec::new();
            for prompt in prompts {
                let request = match prompt.prompt.to_lowercase().contains("password") {
                    true => self.password_request(),
                    false => SecretRequest::Question {
                        prompt: prompt.prompt,
                        echo: prompt.echo,
                    },
                };
                let Some(response) = self.secret(request).await else {
                    return Ok(false);
                };
                responses.push(response);
            }
            let responded = self
                .handle
                .authenticate_keyboard_interactive_respond(responses);
            answer = responded.await.map_err(|e| self.gone(e))?;
        }
        Ok(false)
    }
}
