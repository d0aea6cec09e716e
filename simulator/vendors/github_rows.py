"""GitHub's objects, with the fields that answers of November 2026 have."""

import hashlib
from collections.abc import Mapping

from simulator.vendors.accounts import Account
from simulator.vendors.dataset import Item, Path, mixed
from simulator.vendors.exchange import Call, Row, zulu
from simulator.vendors.ids import shuffled, written
from simulator.vendors.words import sentence, title

WEB = "https://github.com"
FIRST_REPO = 1_200_000_000
FIRST_ITEM = 4_000_000_000
REPOS = 1 << 10  # per account
ITEMS = 1 << 24  # per repository
PEOPLE = 9
LABELS = (("bug", "d73a4a", "Something isn't working"), ("documentation", "0075ca", "Improvements to documentation"))


def login(account: Account) -> str:
    """Who owns the repositories."""
    return account.name


def user_id(account: Account, person: int = 0) -> int:
    """Of the owner, or of somebody else."""
    return 125_000_000 + account.ordinal * 100 + person


def repo_id(account: Account, repo: int) -> int:
    """The number of a repository."""
    return FIRST_REPO + account.ordinal * REPOS + repo


def repo_name(repo: int) -> str:
    """In the order of the numbers, so that sorting by name is sorting by number."""
    return f"service-{repo + 1:03d}"


def repo_path(name: str) -> Path | None:
    """The repository of a name."""
    number = name.removeprefix("service-")
    return (int(number) - 1,) if number.isdigit() and repo_name(int(number) - 1) == name else None


def item_id(account: Account, path: Path) -> int:
    """The `id` of an issue or comment."""
    return FIRST_ITEM + (account.ordinal * REPOS + path[0]) * ITEMS + path[1]


def item_path(account: Account, number: int) -> Path | None:
    """The issue or comment of an `id`."""
    place, item = divmod(number - FIRST_ITEM, ITEMS)
    ordinal, repo = divmod(place, REPOS)
    return (repo, item) if ordinal == account.ordinal else None


def is_pull(number: int) -> bool:
    """Every fifth issue is a pull request."""
    return number % 5 == 4


def state(item: Item) -> str:
    """A third is closed, and each change may open or close one."""
    return "closed" if (item.number + item.revision) % 3 == 0 else "open"


def node(prefix: str, number: int) -> str:
    """A global node id."""
    return f"{prefix}_kwDO{written(shuffled(number, 80), 14)}"


def user(call: Call, person: int = 0) -> Row:
    """A simple user; nobody but the owner is an outsider."""
    number = user_id(call.account, person)
    name = login(call.account) if person == 0 else f"{login(call.account)}-dev{person}"
    url = f"{call.base_url}/users/{name}"
    return {
        "login": name,
        "id": number,
        "node_id": node("U", number),
        "avatar_url": f"https://avatars.githubusercontent.com/u/{number}?v=4",
        "gravatar_id": "",
        "url": url,
        "html_url": f"{WEB}/{name}",
        "followers_url": f"{url}/followers",
        "following_url": f"{url}/following{{/other_user}}",
        "gists_url": f"{url}/gists{{/gist_id}}",
        "starred_url": f"{url}/starred{{/owner}}{{/repo}}",
        "subscriptions_url": f"{url}/subscriptions",
        "organizations_url": f"{url}/orgs",
        "repos_url": f"{url}/repos",
        "events_url": f"{url}/events{{/privacy}}",
        "received_events_url": f"{url}/received_events",
        "type": "User",
        "user_view_type": "public",
        "site_admin": False,
    }


REPO_URLS: Mapping[str, str] = {
    "forks_url": "/forks",
    "keys_url": "/keys{/key_id}",
    "collaborators_url": "/collaborators{/collaborator}",
    "teams_url": "/teams",
    "hooks_url": "/hooks",
    "issue_events_url": "/issues/events{/number}",
    "events_url": "/events",
    "assignees_url": "/assignees{/user}",
    "branches_url": "/branches{/branch}",
    "tags_url": "/tags",
    "blobs_url": "/git/blobs{/sha}",
    "git_tags_url": "/git/tags{/sha}",
    "git_refs_url": "/git/refs{/sha}",
    "trees_url": "/git/trees{/sha}",
    "statuses_url": "/statuses/{sha}",
    "languages_url": "/languages",
    "stargazers_url": "/stargazers",
    "contributors_url": "/contributors",
    "subscribers_url": "/subscribers",
    "subscription_url": "/subscription",
    "commits_url": "/commits{/sha}",
    "git_commits_url": "/git/commits{/sha}",
    "comments_url": "/comments{/number}",
    "issue_comment_url": "/issues/comments{/number}",
    "contents_url": "/contents/{+path}",
    "compare_url": "/compare/{base}...{head}",
    "merges_url": "/merges",
    "archive_url": "/{archive_format}{/ref}",
    "downloads_url": "/downloads",
    "issues_url": "/issues{/number}",
    "pulls_url": "/pulls{/number}",
    "milestones_url": "/milestones{/number}",
    "notifications_url": "/notifications{?since,all,participating}",
    "labels_url": "/labels{/name}",
    "releases_url": "/releases{/id}",
    "deployments_url": "/deployments",
}


def repo_url(call: Call, repo: Item) -> str:
    """In the API."""
    return f"{call.base_url}/repos/{login(call.account)}/{repo_name(repo.number)}"


def repo(call: Call, item: Item, *, permissions: bool = False) -> Row:
    """A repository."""
    account, name = call.account, repo_name(item.number)
    full_name = f"{login(account)}/{name}"
    number, url = repo_id(account, item.number), repo_url(call, item)
    issues = account.dataset.size("issues", (item.number,))
    made: Row = {
        "id": number,
        "node_id": node("R", number),
        "name": name,
        "full_name": full_name,
        "private": item.number % 2 == 0,
        "owner": user(call),
        "html_url": f"{WEB}/{full_name}",
        "description": None,
        "fork": False,
        "url": url,
        **{field: url + path for field, path in REPO_URLS.items()},
        "created_at": zulu(item.created),
        "updated_at": zulu(item.updated),
        "pushed_at": zulu(item.updated),
        "git_url": f"git://github.com/{full_name}.git",
        "ssh_url": f"git@github.com:{full_name}.git",
        "clone_url": f"{WEB}/{full_name}.git",
        "svn_url": f"{WEB}/{full_name}",
        "homepage": None,
        "size": 22 + item.revision,
        "stargazers_count": 0,
        "watchers_count": 0,
        "language": "Python",
        "has_issues": True,
        "has_projects": True,
        "has_downloads": True,
        "has_wiki": True,
        "has_pages": False,
        "has_discussions": False,
        "forks_count": 0,
        "mirror_url": None,
        "archived": False,
        "disabled": False,
        "open_issues_count": issues,
        "license": {
            "key": "mit",
            "name": "MIT License",
            "spdx_id": "MIT",
            "url": f"{call.base_url}/licenses/mit",
            "node_id": "MDc6TGljZW5zZTEz",
        },
        "allow_forking": True,
        "is_template": False,
        "web_commit_signoff_required": False,
        "has_pull_requests": True,
        "pull_request_creation_policy": "all",
        "topics": [],
        "visibility": "private" if item.number % 2 == 0 else "public",
        "forks": 0,
        "open_issues": issues,
        "watchers": 0,
        "default_branch": "main",
    }
    if permissions:
        made["permissions"] = {"admin": False, "maintain": False, "push": True, "triage": True, "pull": True}
    return made


def issue(call: Call, repo_: Item, item: Item, comments: int) -> Row:
    """An issue, or a pull request as it stands among issues."""
    account, path = call.account, (repo_.number, item.number)
    above, number, pull_ = repo_url(call, repo_), item.number + 1, is_pull(item.number)
    url, closed = f"{above}/issues/{number}", state(item) == "closed"
    page = f"{WEB}/{login(account)}/{repo_name(repo_.number)}/{'pull' if pull_ else 'issues'}/{number}"
    assignee = user(call, mixed(account.seed, number) % PEOPLE) if number % 4 == 1 else None
    made: Row = {
        "url": url,
        "repository_url": above,
        "labels_url": f"{url}/labels{{/name}}",
        "comments_url": f"{url}/comments",
        "events_url": f"{url}/events",
        "html_url": page,
        "id": item_id(account, path),
        "node_id": node("PR" if pull_ else "I", item_id(account, path)),
        "number": number,
        "title": title(account.seed, item.number, item.revision),
        "user": user(call, number % PEOPLE),
        "labels": [label(call, above, number % 2)] if number % 3 == 0 else [],
        "state": state(item),
        "locked": False,
        "assignees": [assignee] if assignee else [],
        "milestone": None,
        "comments": comments,
        "created_at": zulu(item.created),
        "updated_at": zulu(item.updated),
        "closed_at": zulu(item.updated) if closed else None,
        "assignee": assignee,
        "author_association": "CONTRIBUTOR",
        "active_lock_reason": None,
    }
    if pull_:
        made["draft"] = False
        made["pull_request"] = {
            "url": f"{above}/pulls/{number}",
            "html_url": page,
            "diff_url": f"{page}.diff",
            "patch_url": f"{page}.patch",
            "merged_at": zulu(item.updated) if closed else None,
        }
    else:
        made["sub_issues_summary"] = {"total": 0, "completed": 0, "percent_completed": 0}
        made["issue_dependencies_summary"] = dict.fromkeys(
            ("blocked_by", "total_blocked_by", "blocking", "total_blocking"), 0
        )
    made |= {
        "body": sentence(account.seed, item.number, item.revision),
        "closed_by": user(call) if closed else None,
        "reactions": reactions(url),
        "timeline_url": f"{url}/timeline",
        "performed_via_github_app": None,
        "state_reason": "completed" if closed and not pull_ else None,
    }
    if not pull_:
        made["pinned_comment"] = None
    return made


def comment(call: Call, repo_: Item, issue_number: int, item: Item) -> Row:
    """A comment on an issue."""
    account, above = call.account, repo_url(call, repo_)
    number = item_id(account, (repo_.number, item.number))
    url = f"{above}/issues/comments/{number}"
    kind = "pull" if is_pull(issue_number) else "issues"
    page = f"{WEB}/{login(account)}/{repo_name(repo_.number)}/{kind}/{issue_number + 1}"
    return {
        "url": url,
        "html_url": f"{page}#issuecomment-{number}",
        "issue_url": f"{above}/issues/{issue_number + 1}",
        "id": number,
        "node_id": node("IC", number),
        "user": user(call, item.number % PEOPLE),
        "created_at": zulu(item.created),
        "updated_at": zulu(item.updated),
        "body": sentence(account.seed + 1, item.number, item.revision),
        "author_association": "CONTRIBUTOR",
        "pin": None,
        "reactions": reactions(url),
        "performed_via_github_app": None,
    }


def pull(call: Call, repo_: Item, item: Item) -> Row:
    """A pull request as it stands among pull requests: another `id` than among issues."""
    account, above, number = call.account, repo_url(call, repo_), item.number + 1
    url, closed = f"{above}/pulls/{number}", state(item) == "closed"
    page = f"{WEB}/{login(account)}/{repo_name(repo_.number)}/pull/{number}"
    head = hashlib.sha1(f"{account.seed} {number} {item.revision}".encode()).hexdigest()  # noqa: S324 - as git has it

    def branch(name: str, sha: str) -> Row:
        return {
            "label": f"{login(account)}:{name}",
            "ref": name,
            "sha": sha,
            "user": user(call),
            "repo": repo(call, repo_),
        }

    links = {
        "self": url,
        "html": page,
        "issue": f"{above}/issues/{number}",
        "comments": f"{above}/issues/{number}/comments",
        "review_comments": f"{url}/comments",
        "review_comment": f"{above}/pulls/comments{{/number}}",
        "commits": f"{url}/commits",
        "statuses": f"{above}/statuses/{head}",
    }
    return {
        "url": url,
        "id": item_id(account, (repo_.number, item.number)) - 700_000_000,
        "node_id": node("PR", item_id(account, (repo_.number, item.number))),
        "html_url": page,
        "diff_url": f"{page}.diff",
        "patch_url": f"{page}.patch",
        "issue_url": links["issue"],
        "number": number,
        "state": state(item),
        "locked": False,
        "title": title(account.seed, item.number, item.revision),
        "user": user(call, number % PEOPLE),
        "body": sentence(account.seed, item.number, item.revision),
        "created_at": zulu(item.created),
        "updated_at": zulu(item.updated),
        "closed_at": zulu(item.updated) if closed else None,
        "merged_at": zulu(item.updated) if closed else None,
        "merge_commit_sha": head,
        "assignees": [],
        "requested_reviewers": [],
        "requested_teams": [],
        "labels": [],
        "milestone": None,
        "draft": False,
        "commits_url": links["commits"],
        "review_comments_url": links["review_comments"],
        "review_comment_url": links["review_comment"],
        "comments_url": links["comments"],
        "statuses_url": links["statuses"],
        "head": branch(f"change-{number}", head),
        "base": branch("main", head[::-1]),
        "_links": {name: {"href": target} for name, target in links.items()},
        "author_association": "CONTRIBUTOR",
        "auto_merge": None,
        "assignee": None,
        "active_lock_reason": None,
    }


def label(call: Call, above: str, place: int) -> Row:
    """One of a repository's labels."""
    name, color, description = LABELS[place]
    number = 10_000_000_000 + call.account.ordinal * 10 + place
    return {
        "id": number,
        "node_id": node("LA", number),
        "url": f"{above}/labels/{name}",
        "name": name,
        "color": color,
        "default": True,
        "description": description,
    }


def reactions(url: str) -> Row:
    """None yet."""
    names = ("+1", "-1", "laugh", "hooray", "confused", "heart", "rocket", "eyes")
    return {"url": f"{url}/reactions", "total_count": 0, **dict.fromkeys(names, 0)}
