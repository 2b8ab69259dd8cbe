-- KEYS: the line of those who were refused, one number: until when places are promised. ARGV: ms until there is surely
-- room, ms from one place to the next, most ms. Returns the ms after which whoever asks should come back.
-- If all were told the same moment, most of them would be refused again. Behind the last promise that is kept apart it
-- begins anew: whoever hammers makes nobody wait longer than that.
local first, gap, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local promised = tonumber(redis.call('GET', KEYS[1])) or 0
local place = math.max(now + first, promised + gap)
if place > now + most then
  place = now + first
end
redis.call('SET', KEYS[1], string.format('%.0f', place), 'PX', math.max(1, math.ceil(place - now)))
return math.ceil(place - now)
