//! Tokens of OAuth: a refresh token is good once.

use std::time::Duration;

use serde_json::{Value, json};
use towpath_testkit::pipedrive::{Kind, OAuthApp, PipedriveOptions};

use crate::{
    client::{Client, Reply},
    roomy, server,
};

async fn ask(client: &Client, form: &str) -> Reply {
    client.try_call("POST", "/oauth/token", "application/x-www-form-urlencoded", form.to_owned()).await.unwrap()
}

const APP: &str = "client_id=towpath-app&client_secret=towpath-secret";

#[tokio::test]
async fn a_refresh_token_is_good_once_and_an_access_token_for_its_time() {
    let (server, client) = server(PipedriveOptions { oauth: Some(OAuthApp::default()), ..roomy() }).await;
    let first = ask(&client, &format!("grant_type=refresh_token&refresh_token=towpath-refresh-0&{APP}")).await;
    assert_eq!(first.status, 200, "{}", first.text);
    assert_eq!(first.body["expires_in"], 3600);
    assert_eq!(first.body["api_domain"], json!(server.url()));
    let again = ask(&client, &format!("grant_type=refresh_token&refresh_token=towpath-refresh-0&{APP}")).await;
    assert_eq!((again.status, &again.body["error"]), (400, &json!("invalid_grant")));
    let wrong = ask(&client, "grant_type=refresh_token&refresh_token=x&client_id=towpath-app&client_secret=no").await;
    assert_eq!((wrong.status, &wrong.body["error"]), (401, &json!("invalid_client")));

    let bearer = |reply: &Reply| {
        let mut client = client.clone();
        client.headers =
            vec![("authorization".to_owned(), format!("Bearer {}", reply.body["access_token"].as_str().unwrap()))];
        client
    };
    let mine = bearer(&first);
    let reply = mine.call("GET", "/api/v2/persons", Value::Null).await;
    assert_eq!(
        (reply.status, reply.header("x-ratelimit-limit")),
        (200, Some("480")),
        "apps have four times the window"
    );
    server.clock().advance(Duration::from_secs(3600));
    assert_eq!(mine.call("GET", "/api/v2/persons", Value::Null).await.status, 401);
    let next = first.body["refresh_token"].as_str().unwrap();
    let second = ask(&client, &format!("grant_type=refresh_token&refresh_token={next}&{APP}")).await;
    let mine = bearer(&second);
    assert_eq!(mine.call("GET", "/api/v2/persons", Value::Null).await.status, 200);
    server.account().expire_access_tokens();
    assert_eq!(mine.call("GET", "/api/v2/persons", Value::Null).await.status, 401);
    server.account().revoke_tokens();
    let next = second.body["refresh_token"].as_str().unwrap();
    assert_eq!(ask(&client, &format!("grant_type=refresh_token&refresh_token={next}&{APP}")).await.status, 400);
    assert_eq!(server.log().count(Kind::Token), 5);
    assert!(server.log().calls().iter().any(|call| call.oauth));
}

#[tokio::test]
async fn an_app_may_be_told_less_and_keep_its_refresh_token() {
    let app = OAuthApp { tells_expiry: false, refresh_tokens_once: false, ..OAuthApp::default() };
    let (_server, client) = server(PipedriveOptions { oauth: Some(app), ..roomy() }).await;
    for _ in 0..2 {
        let reply = ask(&client, &format!("grant_type=refresh_token&refresh_token=towpath-refresh-0&{APP}")).await;
        assert_eq!((reply.status, reply.body.get("expires_in")), (200, None));
    }
    let code = format!("grant_type=authorization_code&code=towpath-code&redirect_uri=https://localhost&{APP}");
    assert_eq!(ask(&client, &code).await.status, 200);
    assert_eq!(ask(&client, &code).await.status, 400, "a code is good once");
    assert_eq!(ask(&client, &format!("grant_type=client_credentials&{APP}")).await.status, 400);
}
