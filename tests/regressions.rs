//! What the simulations found, as stories.
