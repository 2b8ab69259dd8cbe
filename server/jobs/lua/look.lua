-- KEYS: a job's tombstone, the note that data was lost. Arguments: id, aging_ms.
-- Returns what place_of does, and behind it the tombstone and the note, '' where there is none.
local place = place_of(args.id, args.aging_ms)
place[5] = redis.call('GET', KEYS[1]) or ''
place[6] = redis.call('GET', KEYS[2]) or ''
return place
