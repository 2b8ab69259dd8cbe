-- KEYS: a tenant's bucket. Arguments: rate (tokens a second), bucket (most tokens). Takes one.
-- Returns 0, or the microseconds until there is one. The bucket is one number: the time at which it will be full again.
-- What has to be refused takes nothing, so that a client that hammers is served as often as one that waits.
local moment = time[1] * 1000000 + time[2]
local gap = 1000000 / args.rate
local most = gap * args.bucket
-- It is never further away than an empty bucket, unless the clock was set back or the limits have changed.
local before = math.min(tonumber(redis.call('GET', KEYS[1])) or 0, moment + most)
local full = math.max(moment, before) + gap
local wait = full - most - moment
if wait > 0 then
  return math.ceil(wait)
end
redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - moment) / 1000))
return 0
