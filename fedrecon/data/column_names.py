"""The names by which columns are known: one list for files of ratings, for their items, and for
what users give.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

USER, ITEM, RATING, TIMESTAMP = ROLES = ("user", "item", "rating", "timestamp")
TITLE, GENRES = "title", "genres"

# In small letters and without signs between. A name of an earlier group goes before the names of
# later groups; two of one group may mean either.
_NAMES: dict[str, tuple[tuple[str, ...], ...]] = {
    USER: (
        (
            *("userid", "uid", "reviewerid", "customerid", "memberid", "profileid", "visitorid"),
            *("viewerid", "playerid", "steamid", "accountid", "readerid", "listenerid", "raterid"),
            *("personid", "clientid"),
        ),
        (
            *("user", "customer", "reviewer", "reader", "viewer", "listener", "player", "member"),
            *("visitor", "rater", "person", "userindex", "useridx", "reviewprofilename", "u"),
        ),
        ("username", "readername", "reviewername"),
    ),
    ITEM: (
        (
            *("itemid", "iid", "movieid", "filmid", "asin", "productid", "bookid", "isbn"),
            *("artistid", "albumid", "songid", "trackid", "animeid", "gameid", "appid", "jokeid"),
            *("businessid", "restaurantid", "hotelid", "gmapid", "beerid", "beerbeerid"),
            *("recipeid", "contentid", "articleid", "newsid", "videoid", "showid", "courseid"),
        ),
        (
            *("item", "movie", "film", "product", "book", "artist", "album", "song", "track"),
            *("anime", "game", "joke", "restaurant", "hotel", "beer", "recipe", "article"),
            *("video", "show", "course", "parentasin", "itemindex", "itemidx", "i"),
        ),
        # Somebody whose file names items has no other ids for them.
        ("title", "movietitle", "filmtitle", "booktitle", "gametitle", "itemtitle", "itemname"),
    ),
    RATING: (
        (
            *("rating", "ratings", "stars", "star", "score", "overall", "bookrating"),
            *("userrating", "myrating", "starrating", "reviewscore", "reviewoverall", "myscore"),
        ),
        ("points", "grade", "value", "preference", "weight", "r"),
    ),
    TIMESTAMP: (
        ("timestamp", "ratingtimestamp", "unixreviewtime", "unixtime", "ts", "tstamp", "t"),
        (
            *("time", "datetime", "date", "when", "reviewtime", "reviewdate", "ratingdate"),
            *("createdat", "created", "eventtime", "ratedat", "ratedon", "dateadded"),
        ),
        (
            *("watchedat", "watchedon", "watcheddate", "readat", "viewedat", "playedat"),
            *("listenedat", "lastupdated", "updatedat"),
        ),
    ),
    TITLE: (
        (
            *("title", "name", "movietitle", "filmtitle", "booktitle", "itemname", "itemtitle"),
            *("originaltitle",),
        ),
    ),
    GENRES: (("genres", "genre", "categories", "category", "tags"),),
}


def is_known(name: str) -> bool:
    """Returns whether a column's name tells its role."""
    plain = _plain(name)
    return any(plain in group for groups in _NAMES.values() for group in groups)


def candidates(header: Sequence[str], role: str) -> list[int]:
    """Returns the places of the columns that may have a role, the likeliest first, from 0.

    They are of one group of names; a surer one leaves out all others.
    """
    names = list(map(_plain, header))
    for group in _NAMES[role]:
        found = [place for known in group for place, name in enumerate(names) if name == known]
        if found:
            return found
    return []


def _plain(name: str) -> str:
    """Returns a name as it stands in `_NAMES`; RecBole writes its type behind a colon."""
    return re.sub("[^a-z0-9]", "", str(name).partition(":")[0].lower())
