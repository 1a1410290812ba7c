//! What the pages of the login say.

use std::{fmt::Write, sync::Arc, time::Instant};

use crate::{
    session::{DeviceToken, Session},
    web::page::{Page, escape},
};

/// An app that a person may open.
#[derive(Clone, Debug)]
pub struct Link {
    /// What it is called.
    pub name: Arc<str>,
    /// Where it is.
    pub url: String,
}

/// The form that asks for name and password. `ask` is carried on to `host`.
pub(super) fn login(
    title: &str,
    csrf: &str,
    ask: Option<(&str, &str)>,
    alert: Option<&str>,
    more: &str,
) -> Page {
    let mut page = Page::new(title, "Log in");
    if let Some(alert) = alert {
        page = page.alert(alert).html(more);
    }
    page = match ask {
        Some((_sealed, host)) => page
            .text(&format!("You go on to {host} with your company account."))
            .leads_to(host),
        None => page.text("Use your company account."),
    };
    let carried = ask.map_or_else(String::new, |(sealed, _host)| hidden("ask", sealed));
    page.html(&format!(
        "<form method=\"post\" action=\"/login\">\n{}{carried}\
         <div><label for=\"user\">User name</label>\n\
         <input id=\"user\" name=\"user\" type=\"text\" autocomplete=\"username\" \
         autocapitalize=\"none\" autocorrect=\"off\" spellcheck=\"false\" maxlength=\"256\" \
         required autofocus></div>\n\
         <div><label for=\"password\">Password</label>\n\
         <input id=\"password\" name=\"password\" type=\"password\" \
         autocomplete=\"current-password\" maxlength=\"1024\" required></div>\n\
         <button type=\"submit\">Log in</button>\n</form>\n",
        hidden("csrf", csrf)
    ))
}

/// What a person sees who is logged in.
pub(super) fn home(
    title: &str,
    session: &Session,
    csrf: &str,
    links: &[Link],
    devices: &[Arc<DeviceToken>],
    now: Instant,
) -> Page {
    let mut html = String::new();
    if links.is_empty() {
        html.push_str("<p>There is no app here that you may open.</p>\n");
    } else {
        html.push_str("<ul>\n");
        for Link { name, url } in links {
            // Writing to a `String` cannot fail; here and below.
            let _infallible = writeln!(
                html,
                "<li><a href=\"{}\">{}</a></li>",
                escape(url),
                escape(name)
            );
        }
        html.push_str("</ul>\n");
    }
    let csrf = hidden("csrf", csrf);
    html.push_str(
        "<h2>Devices</h2>\n<p>A device token lets a device or an app connect without your \
         password. Make one for each, so that you can take it back alone.</p>\n",
    );
    if !devices.is_empty() {
        html.push_str("<ul>\n");
        for device in devices {
            let label = if device.label.is_empty() {
                "no name"
            } else {
                &device.label
            };
            let left = device.until.saturating_duration_since(now).as_secs() / 3600;
            let _infallible = writeln!(
                html,
                "<li><span>{label} <span class=\"dim\">{days} d {hours} h left</span></span>\
                 <form method=\"post\" action=\"/token/revoke\">{csrf}{id}\
                 <button class=\"plain\" type=\"submit\" aria-label=\"Revoke {label}\">Revoke\
                 </button></form></li>",
                label = escape(label),
                days = left / 24,
                hours = left % 24,
                id = hidden("id", &device.id),
            );
        }
        html.push_str("</ul>\n");
    }
    let _infallible = writeln!(
        html,
        "<form method=\"post\" action=\"/token\">{csrf}\
         <div><label for=\"label\">Name of the device or app</label>\n\
         <input id=\"label\" name=\"label\" type=\"text\" maxlength=\"64\" autocomplete=\"off\"></div>\n\
         <button type=\"submit\">Make a device token</button></form>\n\
         <div class=\"end\"><span>Logged in as {user}</span>\
         <form method=\"post\" action=\"/logout\">{csrf}\
         <button class=\"plain\" type=\"submit\">Log out</button></form></div>",
        user = escape(&session.identity().user),
    );
    Page::new(title, "Your apps").html(&html)
}

/// A device token, told once.
pub(super) fn token(title: &str, token: &str, host: &str) -> Page {
    Page::new(title, "Your device token")
        .text("Copy it now: it is not shown again.")
        .html(&format!(
            "<p><code class=\"token\">{}</code></p>\n",
            escape(token)
        ))
        .text(&format!(
            "The device shows it to https://{host} as “Bearer”: in Proxy-Authorization for \
             tunnels, in Authorization for sites."
        ))
        .html("<p><a href=\"/\">Back to your apps</a></p>\n")
}

fn hidden(name: &str, value: &str) -> String {
    let value = escape(value);
    format!("<input type=\"hidden\" name=\"{name}\" value=\"{value}\">\n")
}
