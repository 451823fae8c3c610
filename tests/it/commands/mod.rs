//! Commands about policy files, run as a program.

mod account_default;
mod check_config;
mod doctor;
mod explain;
mod explain_because;
mod sign_in;
mod test_policy;

/// Policy file of these tests. `KEYS` stands for the JWKS URL of the second pool.
const FILE: &str = r#"pools:
  partners: {user_pool_id: eu-central-1_Other0002, client_ids: partner, jwks_url: KEYS}
default: members
claim_headers: [{claim: "custom:tenant", header: x-auth-tenant}]
policies:
  members: {remove_authorization: true}
  admin: {groups: {any: [admins]}}
  orders: {scopes: {all: [orders/read]}, headers: {x-gate: orders}}
  open: {public: true}
  guests: {optional: true}
  pages: {cors_preflight: allow}
routes:
- {path_prefix: /admin, policy: admin}
- {path: "/orders/{id}", method: GET, policy: orders}
- {host: open.test, policy: open}
- {path: /guests, policy: guests}
- {path: /pages, policy: pages}
"#;
