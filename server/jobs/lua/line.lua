-- KEYS: the line of those who were refused, one number: until when places are promised. Arguments: first_ms (until there
-- are surely places), gap_ms (from one to the next), most_ms. Returns the ms after which whoever asks should come back.
-- If all got the same moment, most of them would be refused again. Behind the last promise that is kept apart it starts
-- again: whoever hammers makes nobody wait longer than that.
local promised = tonumber(redis.call('GET', KEYS[1])) or 0
local place = math.max(now + args.first_ms, promised + args.gap_ms)
if place > now + args.most_ms then
  place = now + args.first_ms
end
redis.call('SET', KEYS[1], string.format('%.0f', place), 'PX', math.max(1, math.ceil(place - now)))
return math.ceil(place - now)
